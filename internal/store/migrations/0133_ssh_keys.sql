-- +goose Up
-- What is known of a person's SSH key that was enrolled; whether it is valid stands in
-- credentials.
CREATE TABLE ssh_keys (
	fingerprint     TEXT PRIMARY KEY,
	public_key      BYTEA NOT NULL, -- SSH wire format
	attested        BIGINT NOT NULL, -- 1: a maker of FIDO2 keys vouches that it is in one
	aaguid          TEXT NOT NULL, -- the model, '' unless attested
	maker           TEXT NOT NULL,
	verify_required BIGINT NOT NULL -- 1: the FIDO2 key asks for its PIN before each signature
);

-- +goose Down
DROP TABLE ssh_keys;
