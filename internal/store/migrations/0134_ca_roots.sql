-- +goose Up
-- Certificates of a root's key that other roots signed, in DER, one after the other.
ALTER TABLE ca_issuers ADD COLUMN cross_signed BYTEA;
-- When others were to stop trusting it; 0: they trust it.
ALTER TABLE ca_issuers ADD COLUMN retired BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE ca_issuers DROP COLUMN retired;
ALTER TABLE ca_issuers DROP COLUMN cross_signed;
