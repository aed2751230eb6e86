-- +goose Up
-- An account's unfinished orders are counted for each new one, however many it
-- has finished.
DROP INDEX acme_orders_expires;
CREATE INDEX acme_orders_open ON acme_orders (account, expires) WHERE serial = '';

-- +goose Down
DROP INDEX acme_orders_open;
CREATE INDEX acme_orders_expires ON acme_orders (expires) WHERE serial = '';
