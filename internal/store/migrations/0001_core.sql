-- +goose Up
CREATE TABLE counters (
	name  TEXT PRIMARY KEY,
	value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('generation', 1);

-- Secrets that the server itself holds, sealed under the key-encrypting key.
CREATE TABLE keys (
	name    TEXT PRIMARY KEY,
	sealed  BYTEA NOT NULL,
	public  TEXT NOT NULL,
	created BIGINT NOT NULL
);

-- The timeline. line is the exact text that the leaf hashes; the other columns
-- repeat parts of it to be searched.
CREATE TABLE log_events (
	idx     BIGINT PRIMARY KEY,
	time    BIGINT NOT NULL,
	kind    TEXT NOT NULL,
	outcome TEXT NOT NULL,
	person  TEXT NOT NULL,
	address TEXT NOT NULL,
	object  TEXT NOT NULL,
	line    TEXT NOT NULL
);
CREATE INDEX log_events_person ON log_events (person, idx);

CREATE TABLE log_links (
	kind TEXT NOT NULL,
	id   TEXT NOT NULL,
	idx  BIGINT NOT NULL,
	PRIMARY KEY (kind, id, idx)
);

-- The hashes of the tree, in tiles that are finished.
CREATE TABLE log_tiles (
	level BIGINT NOT NULL,
	n     BIGINT NOT NULL,
	data  BYTEA NOT NULL,
	PRIMARY KEY (level, n)
);

-- One row: the hashes that fill no tile yet, and the signed checkpoint over
-- everything.
CREATE TABLE log_state (
	id         BIGINT PRIMARY KEY CHECK (id = 1),
	size       BIGINT NOT NULL,
	edge       BYTEA NOT NULL,
	checkpoint TEXT NOT NULL
);

-- +goose Down
DROP TABLE log_state;
DROP TABLE log_tiles;
DROP TABLE log_links;
DROP TABLE log_events;
DROP TABLE keys;
DROP TABLE counters;
