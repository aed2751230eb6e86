-- +goose Up
CREATE TABLE people (
	name      TEXT PRIMARY KEY,
	email     TEXT NOT NULL,
	full_name TEXT NOT NULL,
	status    TEXT NOT NULL,
	created   BIGINT NOT NULL
);
CREATE UNIQUE INDEX people_email ON people (email) WHERE email <> '';

CREATE TABLE person_groups (
	person TEXT NOT NULL REFERENCES people (name),
	name   TEXT NOT NULL,
	PRIMARY KEY (person, name)
);
CREATE INDEX person_groups_name ON person_groups (name);

CREATE TABLE credentials (
	kind      TEXT NOT NULL,
	id        TEXT NOT NULL,
	person    TEXT REFERENCES people (name),
	label     TEXT NOT NULL,
	status    TEXT NOT NULL,
	created   BIGINT NOT NULL,
	expires   BIGINT NOT NULL,
	last_used BIGINT NOT NULL,
	PRIMARY KEY (kind, id)
);
CREATE INDEX credentials_person ON credentials (person);

-- +goose Down
DROP TABLE credentials;
DROP TABLE person_groups;
DROP TABLE people;
