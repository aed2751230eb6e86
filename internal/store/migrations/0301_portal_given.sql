-- +goose Up
-- What a link gave: the serial number of a certificate, "" for nothing.
ALTER TABLE portal_links ADD COLUMN serial TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE portal_links DROP COLUMN serial;
