-- +goose Up
ALTER TABLE ca_issuers ADD COLUMN revoked BIGINT NOT NULL DEFAULT 0; -- when its own certificate was
UPDATE ca_issuers SET revoked = COALESCE((SELECT MAX(c.revoked) FROM ca_certificates c
	WHERE c.profile = 'intermediate' AND c.der = ca_issuers.certificate), 0);

-- Keys that are known to others (reason keyCompromise) are not certified again.
CREATE INDEX ca_certificates_compromised ON ca_certificates (public_key) WHERE reason = 1;

-- +goose Down
DROP INDEX ca_certificates_compromised;
ALTER TABLE ca_issuers DROP COLUMN revoked;
