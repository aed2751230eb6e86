-- +goose Up
CREATE TABLE portal_settings (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
);

CREATE TABLE portal_links (
	hash    BYTEA PRIMARY KEY,
	purpose TEXT NOT NULL,
	person  TEXT NOT NULL,
	email   TEXT NOT NULL,
	detail  TEXT NOT NULL,
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	used    BIGINT NOT NULL
);
CREATE INDEX portal_links_expires ON portal_links (expires);

-- Messages that wait to be sent; they carry links, so they are sealed.
CREATE TABLE portal_mail (
	id     TEXT PRIMARY KEY,
	sealed BYTEA NOT NULL,
	due    BIGINT NOT NULL,
	tries  BIGINT NOT NULL
);
CREATE INDEX portal_mail_due ON portal_mail (due);

CREATE TABLE portal_reminders (
	serial TEXT NOT NULL,
	before BIGINT NOT NULL,
	sent   BIGINT NOT NULL,
	PRIMARY KEY (serial, before)
);

-- Rate limits: how often something happened in the window that began.
CREATE TABLE portal_counts (
	key     TEXT PRIMARY KEY,
	began   BIGINT NOT NULL,
	ends    BIGINT NOT NULL,
	n       BIGINT NOT NULL
);
CREATE INDEX portal_counts_ends ON portal_counts (ends);

-- Recovery codes; each is also a credential, of kind recovery.
CREATE TABLE portal_codes (
	id     TEXT PRIMARY KEY,
	person TEXT NOT NULL,
	hash   BYTEA NOT NULL
);
CREATE INDEX portal_codes_person ON portal_codes (person);

CREATE TABLE portal_proofs (
	person TEXT NOT NULL,
	name   TEXT NOT NULL,
	value  TEXT NOT NULL,
	method TEXT NOT NULL,
	proved BIGINT NOT NULL,
	asked  BIGINT NOT NULL,
	PRIMARY KEY (person, name)
);

CREATE TABLE portal_orders (
	id      TEXT PRIMARY KEY,
	person  TEXT NOT NULL,
	names   TEXT NOT NULL,
	csr     BYTEA NOT NULL,
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	serial  TEXT NOT NULL
);
CREATE INDEX portal_orders_person ON portal_orders (person);

CREATE TABLE portal_allowed (
	pattern TEXT NOT NULL,
	person  TEXT NOT NULL,
	added   TEXT NOT NULL,
	created BIGINT NOT NULL,
	PRIMARY KEY (pattern, person)
);

-- +goose Down
DROP TABLE portal_allowed;
DROP TABLE portal_orders;
DROP TABLE portal_proofs;
DROP TABLE portal_codes;
DROP TABLE portal_counts;
DROP TABLE portal_reminders;
DROP TABLE portal_mail;
DROP TABLE portal_links;
DROP TABLE portal_settings;
