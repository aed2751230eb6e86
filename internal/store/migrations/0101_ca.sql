-- +goose Up
CREATE TABLE ca_issuers (
	id          TEXT PRIMARY KEY,
	role        TEXT NOT NULL,
	certificate BYTEA,
	public_key  BYTEA NOT NULL,
	sealed_key  BYTEA,
	key_uri     TEXT NOT NULL,
	created     BIGINT NOT NULL,
	position    BIGINT NOT NULL,
	revision    BIGINT NOT NULL -- grows with each revocation
);

CREATE TABLE ca_settings (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
);

CREATE TABLE ca_certificates (
	serial     TEXT PRIMARY KEY,
	issuer     TEXT NOT NULL REFERENCES ca_issuers (id),
	profile    TEXT NOT NULL,
	person     TEXT NOT NULL,
	label      TEXT NOT NULL,
	subject    TEXT NOT NULL,
	names      TEXT NOT NULL, -- each between spaces
	public_key TEXT NOT NULL, -- SHA-256, hex
	der        BYTEA NOT NULL,
	not_before BIGINT NOT NULL,
	not_after  BIGINT NOT NULL,
	issued     BIGINT NOT NULL,
	renews     TEXT NOT NULL,
	revoked    BIGINT NOT NULL,
	reason     BIGINT NOT NULL
);
CREATE INDEX ca_certificates_issued ON ca_certificates (issued);
CREATE INDEX ca_certificates_person ON ca_certificates (person) WHERE person <> '';
CREATE INDEX ca_certificates_key ON ca_certificates (public_key);
CREATE INDEX ca_certificates_revoked ON ca_certificates (issuer, not_after) WHERE revoked <> 0;

CREATE TABLE ca_crls (
	issuer      TEXT PRIMARY KEY REFERENCES ca_issuers (id),
	number      BIGINT NOT NULL,
	revision    BIGINT NOT NULL,
	der         BYTEA NOT NULL,
	this_update BIGINT NOT NULL,
	next_update BIGINT NOT NULL
);

CREATE TABLE ssh_certificates (
	serial       BIGINT PRIMARY KEY,
	issuer       TEXT NOT NULL REFERENCES ca_issuers (id),
	key_id       TEXT NOT NULL,
	person       TEXT NOT NULL,
	principals   TEXT NOT NULL, -- separated by line feeds
	fingerprint  TEXT NOT NULL,
	certificate  BYTEA NOT NULL,
	valid_after  BIGINT NOT NULL,
	valid_before BIGINT NOT NULL,
	issued       BIGINT NOT NULL,
	revoked      BIGINT NOT NULL
);
CREATE INDEX ssh_certificates_person ON ssh_certificates (person) WHERE person <> '';
CREATE INDEX ssh_certificates_revoked ON ssh_certificates (issuer, serial) WHERE revoked <> 0;

CREATE TABLE ssh_revoked_keys (
	fingerprint TEXT PRIMARY KEY,
	public_key  BYTEA NOT NULL, -- SSH wire format
	revoked     BIGINT NOT NULL
);

CREATE TABLE ca_tokens (
	name    TEXT PRIMARY KEY,
	hash    BYTEA NOT NULL UNIQUE,
	domains TEXT NOT NULL, -- separated by spaces
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('ssh-serial', 0), ('ssh-revision', 0);

-- +goose Down
DELETE FROM counters WHERE name IN ('ssh-serial', 'ssh-revision');
DROP TABLE ca_tokens;
DROP TABLE ssh_revoked_keys;
DROP TABLE ssh_certificates;
DROP TABLE ca_crls;
DROP TABLE ca_certificates;
DROP TABLE ca_settings;
DROP TABLE ca_issuers;
