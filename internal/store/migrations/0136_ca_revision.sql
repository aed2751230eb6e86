-- +goose Up
-- Its issuer's revision when a certificate was revoked, so that what was revoked after a
-- list was signed is found without reading all of it.
ALTER TABLE ca_certificates ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
CREATE INDEX ca_certificates_revision ON ca_certificates (issuer, revision) WHERE revoked <> 0;
-- When all that the list holds was read; later lists added to it. 0: that is not known.
ALTER TABLE ca_crls ADD COLUMN complete BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE ca_crls DROP COLUMN complete;
DROP INDEX ca_certificates_revision;
ALTER TABLE ca_certificates DROP COLUMN revision;
