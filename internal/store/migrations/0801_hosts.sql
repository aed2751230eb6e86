-- +goose Up
-- Hosts. Lists have one item a line. What follows joined is what the host says itself.
CREATE TABLE hosts (
	name        TEXT PRIMARY KEY,
	names       TEXT NOT NULL, -- further names and addresses
	labels      TEXT NOT NULL, -- NAME=VALUE
	group_names TEXT NOT NULL,
	status      TEXT NOT NULL,
	created     BIGINT NOT NULL,
	joined      BIGINT NOT NULL,
	version     TEXT NOT NULL,
	serves      TEXT NOT NULL,
	ssh_keys    TEXT NOT NULL,
	krl         BIGINT NOT NULL,
	problems    TEXT NOT NULL,
	heard       BIGINT NOT NULL
);

-- Tokens that admit a host, by their SHA-256. One that was used admits the same key again.
CREATE TABLE host_tokens (
	hash       BYTEA PRIMARY KEY,
	host       TEXT NOT NULL,
	expires    BIGINT NOT NULL,
	used       BIGINT NOT NULL,
	public_key TEXT NOT NULL -- of the host that used it, as in ca_certificates
);
CREATE INDEX host_tokens_host ON host_tokens (host);

-- The client certificates of hosts.
CREATE TABLE host_certificates (
	serial TEXT PRIMARY KEY,
	host   TEXT NOT NULL
);
CREATE INDEX host_certificates_host ON host_certificates (host);

-- +goose Down
DROP TABLE host_certificates;
DROP TABLE host_tokens;
DROP TABLE hosts;
