-- +goose Up
-- The rescue codes of hosts, as JSON with their Argon2id hashes.
CREATE TABLE host_rescue (
	host  TEXT PRIMARY KEY,
	codes TEXT NOT NULL
);

-- +goose Down
DROP TABLE host_rescue;
