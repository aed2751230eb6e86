-- +goose Up
CREATE INDEX log_events_address ON log_events (address, idx) WHERE address <> '';
CREATE INDEX log_events_object ON log_events (object, idx) WHERE object <> '';

-- +goose Down
DROP INDEX log_events_object;
DROP INDEX log_events_address;
