package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

const otpClientColumns = `SELECT id, sealed, label, disabled, must_sign, created FROM otp_clients `

func (o *OTP) scanClient(scan func(...any) error) (*otp.APIClient, error) {
	var c otp.APIClient
	var sealed []byte
	var disabled, mustSign, created int64
	if err := scan(&c.ID, &sealed, &c.Label, &disabled, &mustSign, &created); err != nil {
		return nil, err
	}
	c.Disabled, c.MustSign, c.Created = disabled != 0, mustSign != 0, fromMicros(created)
	if sealed == nil {
		return &c, nil
	}
	var err error
	c.Secret, err = o.db.Unseal(purposeOTPClient, strconv.FormatInt(c.ID, 10), sealed)
	return &c, err
}

// Client implements [otp.Keys].
func (o *OTP) Client(ctx context.Context, id int64) (*otp.APIClient, error) {
	if err := o.poll(ctx); err != nil {
		return nil, err
	}
	if c, ok := cached(o, o.cachedClients, id); ok {
		return c, nil
	}
	var c *otp.APIClient
	var generation int64
	err := o.db.Read(ctx, func(ctx context.Context, tx *Tx) (err error) {
		if generation, err = generationOf(ctx, tx); err != nil {
			return err
		}
		c, err = o.scanClient(tx.QueryRow(ctx, otpClientColumns+`WHERE id = $1`, id).Scan)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, postern.Errorf(postern.NotFound, "no API client %d", id)
	}
	if err != nil {
		return nil, err
	}
	cache(o, o.cachedClients, id, c, generation)
	return c, nil
}

// Clients returns all API clients in the order of their numbers.
func (o *OTP) Clients(ctx context.Context) ([]*otp.APIClient, error) {
	var clients []*otp.APIClient
	err := o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		clients = nil
		rows, err := tx.Query(ctx, otpClientColumns+`ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			c, err := o.scanClient(rows.Scan)
			if err != nil {
				return err
			}
			clients = append(clients, c)
		}
		return rows.Err()
	})
	return clients, err
}

// AddClient adds an API client. With ID 0 it gets the next free number, which
// is set in c.
func (o *OTP) AddClient(ctx context.Context, c *otp.APIClient) error {
	added := *c
	err := o.write(ctx, postern.Actor{}, func(ctx context.Context, tx *Tx) error {
		added.ID = c.ID
		return o.addClient(ctx, tx, &added)
	})
	if err == nil {
		c.ID = added.ID
	}
	return err
}

func (o *OTP) addClient(ctx context.Context, tx *Tx, c *otp.APIClient) error {
	if c.ID == 0 {
		if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) + 1 FROM otp_clients`).Scan(&c.ID); err != nil {
			return err
		}
	}
	if c.ID < 1 || c.ID > otp.MaxClientID {
		return postern.Errorf(postern.Invalid, "an API client's number is from 1 to %d", otp.MaxClientID)
	}
	var sealed []byte
	if len(c.Secret) > 0 {
		var err error
		if sealed, err = o.db.Seal(purposeOTPClient, strconv.FormatInt(c.ID, 10), c.Secret); err != nil {
			return err
		}
	}
	n, err := tx.Exec(ctx, `INSERT INTO otp_clients (id, sealed, label, disabled, must_sign, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`,
		c.ID, sealed, c.Label, flag(c.Disabled), flag(c.MustSign), micros(o.db.Now()))
	if err != nil {
		return err
	}
	if n == 0 {
		return postern.Errorf(postern.Conflict, "there is an API client %d already", c.ID)
	}
	return o.clientChanged(ctx, tx, c.ID, "added")
}

// SetClientDisabled disables or enables an API client.
func (o *OTP) SetClientDisabled(ctx context.Context, id int64, disabled bool) error {
	return o.write(ctx, postern.Actor{}, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `UPDATE otp_clients SET disabled = $2 WHERE id = $1`, id, flag(disabled))
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.NotFound, "no API client %d", id)
		}
		return o.clientChanged(ctx, tx, id, map[bool]string{true: "disabled", false: "enabled"}[disabled])
	})
}

func (o *OTP) clientChanged(ctx context.Context, tx *Tx, id int64, what string) error {
	if err := tx.Touch(ctx); err != nil {
		return err
	}
	return tx.Append(ctx, postern.Event{Kind: postern.EventOTPClient, Object: strconv.FormatInt(id, 10), Reason: what})
}
