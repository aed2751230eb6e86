-- +goose Up
CREATE INDEX log_events_kind ON log_events (kind, idx);
CREATE INDEX log_events_outcome ON log_events (outcome, idx) WHERE outcome <> 'ok';

-- +goose Down
DROP INDEX log_events_outcome;
DROP INDEX log_events_kind;
