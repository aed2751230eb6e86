-- +goose Up
-- What has expired long ago is removed.
CREATE INDEX ca_certificates_expiry ON ca_certificates (not_after);
CREATE INDEX ssh_certificates_expiry ON ssh_certificates (valid_before);

-- +goose Down
DROP INDEX ssh_certificates_expiry;
DROP INDEX ca_certificates_expiry;
