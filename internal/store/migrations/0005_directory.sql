-- +goose Up
-- The LDAP directories that people are taken from. failed is why one cannot be
-- read, '' if it can; expired says that its people were suspended for that.
CREATE TABLE directories (
	name    TEXT PRIMARY KEY,
	config  TEXT NOT NULL,
	synced  BIGINT NOT NULL,
	failed  TEXT NOT NULL,
	expired BIGINT NOT NULL
);

-- id is the entry's, for good. suspended says that the directory has suspended
-- the person, and not an administrator.
CREATE TABLE directory_people (
	person    TEXT PRIMARY KEY REFERENCES people (name),
	directory TEXT NOT NULL,
	id        TEXT NOT NULL,
	suspended BIGINT NOT NULL,
	UNIQUE (directory, id)
);

CREATE TABLE directory_groups (
	person TEXT NOT NULL REFERENCES people (name),
	name   TEXT NOT NULL,
	PRIMARY KEY (person, name)
);

-- +goose Down
DROP TABLE directory_groups;
DROP TABLE directory_people;
DROP TABLE directories;
