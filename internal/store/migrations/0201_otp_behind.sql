-- +goose Up
-- Whether a restore has lost what was used since.
ALTER TABLE otp_counters ADD COLUMN behind BIGINT NOT NULL DEFAULT 0;
ALTER TABLE otp_oath ADD COLUMN behind BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE otp_oath DROP COLUMN behind;
ALTER TABLE otp_counters DROP COLUMN behind;
