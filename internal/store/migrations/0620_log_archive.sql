-- +goose Up
-- One row: the first entries of the timeline, size of them, are in files below dir. Those
-- below removed are here no more.
CREATE TABLE log_archive (
	id         BIGINT PRIMARY KEY CHECK (id = 1),
	size       BIGINT NOT NULL,
	removed    BIGINT NOT NULL,
	checkpoint TEXT NOT NULL,
	dir        TEXT NOT NULL
);

-- +goose Down
DROP TABLE log_archive;
