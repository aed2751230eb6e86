-- +goose Up
CREATE TABLE acme_accounts (
	id         TEXT PRIMARY KEY,
	thumbprint TEXT NOT NULL UNIQUE,
	public_key BYTEA NOT NULL,
	contact    TEXT NOT NULL,
	status     TEXT NOT NULL,
	person     TEXT NOT NULL,
	binding    BYTEA,
	created    BIGINT NOT NULL
);

-- Keys that bind an account to a person, one account each.
CREATE TABLE acme_external_keys (
	id       TEXT PRIMARY KEY,
	person   TEXT NOT NULL,
	label    TEXT NOT NULL,
	sealed   BYTEA NOT NULL,
	account  TEXT NOT NULL,
	disabled BIGINT NOT NULL,
	created  BIGINT NOT NULL
);
CREATE INDEX acme_external_keys_person ON acme_external_keys (person);

-- An order with its authorizations and challenges is the document; beside it
-- is what is looked for.
CREATE TABLE acme_orders (
	id         TEXT PRIMARY KEY,
	account    TEXT NOT NULL,
	status     TEXT NOT NULL,
	processing BIGINT NOT NULL,
	serial     TEXT NOT NULL,
	replaces   TEXT NOT NULL,
	created    BIGINT NOT NULL,
	expires    BIGINT NOT NULL,
	document   BYTEA NOT NULL
);
CREATE INDEX acme_orders_account ON acme_orders (account, created);
CREATE INDEX acme_orders_serial ON acme_orders (serial) WHERE serial <> '';
CREATE INDEX acme_orders_replaces ON acme_orders (replaces) WHERE replaces <> '';
CREATE INDEX acme_orders_processing ON acme_orders (processing) WHERE processing = 1;
CREATE INDEX acme_orders_expires ON acme_orders (expires) WHERE serial = '';

-- Nonces that were used, where several servers answer.
CREATE TABLE acme_nonces (
	nonce   TEXT PRIMARY KEY,
	expires BIGINT NOT NULL
);
CREATE INDEX acme_nonces_expires ON acme_nonces (expires);

-- +goose Down
DROP TABLE acme_nonces;
DROP TABLE acme_orders;
DROP TABLE acme_external_keys;
DROP TABLE acme_accounts;
