-- +goose Up
-- The accounts by which hosts know people. A person is '' in a pattern whose *
-- stands for the person's name; a host is '' for all.
CREATE TABLE accounts (
	name     TEXT NOT NULL,
	host     TEXT NOT NULL,
	person   TEXT NOT NULL,
	any_case BIGINT NOT NULL,
	PRIMARY KEY (name, host)
);

-- +goose Down
DROP TABLE accounts;
