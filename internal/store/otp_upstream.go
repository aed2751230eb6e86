package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// Upstream returns the configuration of the upstream validation service, or
// [postern.NotFound] if there is none.
func (o *OTP) Upstream(ctx context.Context) (otp.ClientConfig, error) {
	var c otp.ClientConfig
	var sealed []byte
	var urls string
	err := o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT client, sealed, urls, level, proxy FROM otp_outside WHERE id = 1`).
			Scan(&c.ID, &sealed, &urls, &c.Level, &c.Proxy)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return c, postern.Errorf(postern.NotFound, "no upstream validation service is configured").
			WithHint("configure one")
	}
	if err != nil {
		return c, err
	}
	c.URLs = strings.Fields(urls)
	c.Key, err = o.db.Unseal(purposeOTPUpstream, "1", sealed)
	return c, err
}

// SetUpstream sets or replaces the upstream validation service.
func (o *OTP) SetUpstream(ctx context.Context, c otp.ClientConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	sealed, err := o.db.Seal(purposeOTPUpstream, "1", c.Key)
	if err != nil {
		return err
	}
	return o.write(ctx, postern.Actor{}, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO otp_outside (id, client, sealed, urls, level, proxy)
			VALUES (1, $1, $2, $3, $4, $5)
			ON CONFLICT (id) DO UPDATE SET client = excluded.client, sealed = excluded.sealed, urls = excluded.urls,
			level = excluded.level, proxy = excluded.proxy`,
			c.ID, sealed, strings.Join(c.URLs, " "), c.Level, c.Proxy); err != nil {
			return err
		}
		return o.upstreamChanged(ctx, tx, "client "+strconv.FormatInt(c.ID, 10)+" of "+strings.Join(c.URLs, " "))
	})
}

// RemoveUpstream removes the upstream validation service.
func (o *OTP) RemoveUpstream(ctx context.Context) error {
	return o.write(ctx, postern.Actor{}, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM otp_outside`); err != nil {
			return err
		}
		return o.upstreamChanged(ctx, tx, "none")
	})
}

func (o *OTP) upstreamChanged(ctx context.Context, tx *Tx, what string) error {
	if err := tx.Touch(ctx); err != nil {
		return err
	}
	return tx.Append(ctx, postern.Event{Kind: postern.EventOTPUpstream, Object: what})
}
