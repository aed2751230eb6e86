-- +goose Up
-- The further profile by which a server's certificate was issued, '' for none: its
-- successor is issued by it, too.
ALTER TABLE ca_certificates ADD COLUMN policy TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE ca_certificates DROP COLUMN policy;
