-- +goose Up
-- How far alerts have read the timeline, and what they remember: one row, or none while
-- there are no alerts.
CREATE TABLE alert_progress (
	id      BIGINT PRIMARY KEY CHECK (id = 1),
	version BIGINT NOT NULL,
	next    BIGINT NOT NULL,
	state   TEXT NOT NULL
);

-- Messages that wait to be delivered.
CREATE TABLE alert_queue (
	id      TEXT PRIMARY KEY,
	message TEXT NOT NULL,
	due     BIGINT NOT NULL,
	tries   BIGINT NOT NULL
);
CREATE INDEX alert_queue_due ON alert_queue (due);

-- +goose Down
DROP TABLE alert_queue;
DROP TABLE alert_progress;
