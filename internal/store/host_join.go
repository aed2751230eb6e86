package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// errToken refuses a token. Which of the reasons it is, an attacker is not told.
var errToken = postern.Errorf(postern.Denied,
	"the token admits no host: it was used, has expired, or never did").WithHint("invite the host again")

// HostByToken returns the host that a token, given by its SHA-256, admits with a key:
// one that no other key has used. Else it fails with [postern.Denied].
func (s Hosts) HostByToken(ctx context.Context, hash []byte, key string) (postern.Host, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (postern.Host, error) {
		return tx.hostByToken(ctx, hash, key)
	})
}

func (tx *Tx) hostByToken(ctx context.Context, hash []byte, key string) (postern.Host, error) {
	var name string
	err := tx.QueryRow(ctx, `SELECT host FROM host_tokens WHERE hash = $1 AND expires > $2
		AND (used = 0 OR public_key = $3)`, hash, micros(tx.db.Now()), key).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return postern.Host{}, errToken
	}
	if err != nil {
		return postern.Host{}, err
	}
	h, err := tx.Host(ctx, name)
	if err == nil && h.Status != postern.HostInvited && h.Status != postern.HostJoined {
		err = postern.Errorf(postern.Denied, "the host %s is %s", h.Name, h.Status)
	}
	return h, err
}

// AdmitHost uses up a token and records the client certificate that was issued for it, as
// one write. The certificates of the host's earlier keys are revoked. Of two
// hosts that show one token, one is admitted; the same key is again.
func (s Hosts) AdmitHost(
	ctx context.Context, hash []byte, name string, by postern.Actor, c ca.Certificate, issued postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		h, err := tx.hostByToken(ctx, hash, c.Key)
		switch {
		case err != nil:
			return err
		case h.Name != name:
			return errToken
		}
		if _, err := tx.Exec(ctx, `UPDATE host_tokens SET used = $2, public_key = $3 WHERE hash = $1`, hash,
			micros(tx.db.Now()), c.Key); err != nil {
			return err
		}
		if _, err := tx.revokeCertificates(ctx, "host", name, postern.Superseded, tx.db.Now()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE hosts SET status = $1, joined = $2 WHERE name = $3`,
			string(postern.HostJoined), micros(tx.db.Now()), name); err != nil {
			return err
		}
		if err := tx.addHostCertificate(ctx, name, c, issued); err != nil {
			return err
		}
		if err := tx.Touch(ctx); err != nil {
			return err
		}
		return tx.Append(ctx, postern.Event{
			Kind: postern.EventHostJoined, Object: name, Details: map[string]string{"certificate": c.Serial},
			Links: issued.Links,
		})
	})
}

// RenewHost records the next client certificate of a host that showed the one of a serial
// number: Denied unless that is valid at this moment.
func (s Hosts) RenewHost(
	ctx context.Context, name, shown string, by postern.Actor, c ca.Certificate, issued postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		h, err := tx.hostShowing(ctx, shown)
		switch {
		case err != nil:
			return err
		case h.Name != name:
			return errNoHost
		}
		return tx.addHostCertificate(ctx, name, c, issued)
	})
}

// hostShowing returns the host with a client certificate that was not revoked: Denied
// unless it may take part.
func (tx *Tx) hostShowing(ctx context.Context, serial string) (postern.Host, error) {
	var name string
	var revoked int64
	err := tx.QueryRow(ctx, `SELECT h.host, c.revoked FROM host_certificates h
		JOIN ca_certificates c ON c.serial = h.serial WHERE h.serial = $1`, serial).Scan(&name, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && revoked != 0:
		return postern.Host{}, errNoHost
	case err != nil:
		return postern.Host{}, err
	}
	h, err := tx.Host(ctx, name)
	if err == nil && h.Status != postern.HostJoined {
		err = postern.Errorf(postern.Denied, "the host %s is %s", name, h.Status).WithHint("resume the host first")
	}
	return h, err
}

// addHostCertificate records a certificate of a host, whose key no other host may have.
func (tx *Tx) addHostCertificate(ctx context.Context, name string, c ca.Certificate, issued postern.Event) error {
	var others bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM ca_certificates c
		LEFT JOIN host_certificates h ON h.serial = c.serial WHERE c.public_key = $1
		AND (h.host IS NULL OR h.host <> $2))`, c.Key, name).Scan(&others)
	switch {
	case err != nil:
		return err
	case others:
		return postern.Errorf(postern.Denied, "the key is in another certificate").WithHint("make a key of its own")
	}
	if err := tx.issueCertificate(ctx, c); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO host_certificates (serial, host) VALUES ($1, $2)`, c.Serial,
		name); err != nil {
		return err
	}
	return tx.Append(ctx, issued)
}

// HostByCertificate returns the host whose client certificate has that serial number and
// was issued by the CA with that certificate (DER). It fails with [postern.Denied] unless
// the certificate is a host's, neither it nor its CA was revoked, and the host
// has joined and is not suspended: at this moment.
func (s Hosts) HostByCertificate(ctx context.Context, serial string, issuer []byte) (postern.Host, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (postern.Host, error) {
		switch issued, revoked, err := tx.IssuedBy(ctx, serial, issuer); {
		case err != nil:
			return postern.Host{}, err
		case !issued, revoked:
			return postern.Host{}, errNoHost
		}
		return tx.hostShowing(ctx, serial)
	})
}

var errNoHost = postern.Errorf(postern.Denied, "the certificate is no host's, or was revoked").
	WithHint("invite the host again")

// HostReported keeps what a host that has joined says about itself.
func (s Hosts) HostReported(ctx context.Context, name string, r postern.HostReport) error {
	r = r.Clean()
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.Exec(ctx, `UPDATE hosts SET version = $1, serves = $2, ssh_keys = $3, krl = $4, problems = $5,
			heard = $6 WHERE name = $7 AND status = 'joined'`, r.Version, joinLines(r.Serves), joinLines(r.Keys),
			r.KRL, joinLines(r.Problems), micros(tx.db.Now()), name)
		return err
	})
}

// stripHost takes from a host what admits it.
func (tx *Tx) stripHost(ctx context.Context, name string) error {
	if _, err := tx.revokeCertificates(ctx, "host", name, postern.CessationOfOperation, tx.db.Now()); err != nil {
		return err
	}
	if err := tx.revokeServed(ctx, name); err != nil {
		return err
	}
	if _, err := tx.revokeSSH(ctx, "host", name, tx.db.Now()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM host_rescue WHERE host = $1`, name); err != nil {
		return err
	}
	return tx.dropTokens(ctx, name)
}

// revokeServed revokes the server certificates that are for names of a host alone, such as
// libvirt's: not those with a name that another host has, too.
func (tx *Tx) revokeServed(ctx context.Context, name string) error {
	list, err := tx.hosts(ctx)
	if err != nil {
		return err
	}
	own, others := map[string]bool{}, map[string]bool{}
	for _, h := range list {
		for _, n := range h.All() {
			if h.Name == name {
				own[n] = true
			} else {
				others[n] = true
			}
		}
	}
	for n := range own {
		certs, err := tx.certificates(ctx, ca.Filter{Leaves: true, Name: n, Valid: tx.db.Now()})
		if err != nil {
			return err
		}
		for _, c := range certs {
			foreign := func(n string) bool { return !own[n] || others[n] }
			if c.Profile == ca.ProfileClient || c.Profile == ca.ProfileHost || slices.ContainsFunc(c.Names, foreign) {
				continue
			}
			if _, err := tx.revokeCertificates(ctx, "serial", c.Serial, postern.CessationOfOperation,
				tx.db.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}
