-- +goose Up
-- A YubiKey's secret. Its person, label and status are its row in credentials.
CREATE TABLE otp_keys (
	public_id TEXT PRIMARY KEY,
	sealed    BYTEA,
	serial    BIGINT NOT NULL
);

-- What a YubiKey was last used for. A row may be here before its key is: a
-- counter that was brought over from another server counts from then on.
CREATE TABLE otp_counters (
	public_id TEXT PRIMARY KEY,
	seq       BIGINT NOT NULL,
	stamp     BIGINT NOT NULL,
	nonce     TEXT NOT NULL,
	used      BIGINT NOT NULL
);

CREATE TABLE otp_clients (
	id        BIGINT PRIMARY KEY,
	sealed    BYTEA,
	label     TEXT NOT NULL,
	disabled  BIGINT NOT NULL,
	must_sign BIGINT NOT NULL,
	created   BIGINT NOT NULL
);

-- What peers of the sync protocol have not yet heard: the newest of each key.
CREATE TABLE otp_sync (
	peer      TEXT NOT NULL,
	public_id TEXT NOT NULL,
	seq       BIGINT NOT NULL,
	stamp     BIGINT NOT NULL,
	nonce     TEXT NOT NULL,
	used      BIGINT NOT NULL,
	PRIMARY KEY (peer, public_id)
);

-- The outside validation service: at most one row.
CREATE TABLE otp_outside (
	id        BIGINT PRIMARY KEY,
	client    BIGINT NOT NULL,
	sealed    BYTEA NOT NULL,
	urls      TEXT NOT NULL,
	level     TEXT NOT NULL,
	proxy     TEXT NOT NULL
);

CREATE TABLE otp_settings (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
);

-- TOTP and HOTP. moving is the last accepted time step or counter, or -1.
CREATE TABLE otp_oath (
	kind   TEXT NOT NULL,
	id     TEXT NOT NULL,
	sealed BYTEA NOT NULL,
	hash   TEXT NOT NULL,
	digits BIGINT NOT NULL,
	period BIGINT NOT NULL,
	moving BIGINT NOT NULL,
	used   BIGINT NOT NULL,
	PRIMARY KEY (kind, id)
);

CREATE TABLE otp_recovery (
	person  TEXT NOT NULL REFERENCES people (name),
	hash    BYTEA NOT NULL,
	created BIGINT NOT NULL,
	used    BIGINT NOT NULL,
	PRIMARY KEY (person, hash)
);

-- Wrong guesses at short codes since the last right one, and until when no
-- more are taken.
CREATE TABLE otp_guesses (
	person       TEXT PRIMARY KEY REFERENCES people (name),
	wrong        BIGINT NOT NULL,
	locked_until BIGINT NOT NULL
);

-- +goose Down
DROP TABLE otp_guesses;
DROP TABLE otp_recovery;
DROP TABLE otp_oath;
DROP TABLE otp_settings;
DROP TABLE otp_outside;
DROP TABLE otp_sync;
DROP TABLE otp_clients;
DROP TABLE otp_counters;
DROP TABLE otp_keys;
