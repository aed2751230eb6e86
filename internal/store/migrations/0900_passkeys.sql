-- +goose Up
-- What is needed to check a passkey; whose it is, and whether it is valid, stands in
-- credentials.
CREATE TABLE passkeys (
	id         TEXT PRIMARY KEY, -- of the credential
	raw        BYTEA NOT NULL, -- credential ID that the authenticator chose
	public_key BYTEA NOT NULL, -- COSE_Key
	counter    BIGINT NOT NULL, -- signature counter at the last use
	aaguid     BYTEA NOT NULL, -- the model
	transports TEXT NOT NULL, -- between spaces
	synced     BIGINT NOT NULL -- 1: it may be on several computers
);

-- The hashes of challenges that were used, until they have expired.
CREATE TABLE passkey_challenges (
	hash    BYTEA PRIMARY KEY,
	expires BIGINT NOT NULL
);
CREATE INDEX passkey_challenges_expires ON passkey_challenges (expires);

-- +goose Down
DROP TABLE passkey_challenges;
DROP TABLE passkeys;
