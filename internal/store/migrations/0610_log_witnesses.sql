-- +goose Up
-- What each witness cosigned last: checkpoint is signed by the log and by the witness.
CREATE TABLE log_witnesses (
	key        TEXT PRIMARY KEY,
	name       TEXT NOT NULL,
	size       BIGINT NOT NULL,
	time       BIGINT NOT NULL,
	checkpoint TEXT NOT NULL,
	problem    TEXT NOT NULL
);

-- One row: the last checkpoint that as many witnesses cosigned as the policy asks for.
CREATE TABLE log_cosigned (
	id         BIGINT PRIMARY KEY CHECK (id = 1),
	checkpoint TEXT NOT NULL
);

-- +goose Down
DROP TABLE log_cosigned;
DROP TABLE log_witnesses;
