-- +goose Up
-- The newest nonce that was used in each slot, where several servers answer.
DROP TABLE acme_nonces;
CREATE TABLE acme_nonces (
	slot BIGINT PRIMARY KEY,
	made BIGINT NOT NULL
);

-- +goose Down
DROP TABLE acme_nonces;
CREATE TABLE acme_nonces (
	nonce   TEXT PRIMARY KEY,
	expires BIGINT NOT NULL
);
CREATE INDEX acme_nonces_expires ON acme_nonces (expires);
