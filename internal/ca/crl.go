package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// crlCache holds the newest list of each issuer that this process has seen.
type crlCache struct {
	mu    sync.Mutex
	lists map[string]CRL
	tried map[string]time.Time // when an issuer's key was last asked for one
}

// keyPause is the least time between two attempts to replace what is still valid
// with an issuer's key. The key may be in an HSM that is unavailable, or that wants
// a touch for each signature.
const keyPause = time.Minute

// due reports whether an issuer's key may be used again, and if so notes that it is.
func (c *crlCache) due(issuer string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tried == nil {
		c.tried = map[string]time.Time{}
	}
	if since := now.Sub(c.tried[issuer]); since >= 0 && since < keyPause {
		return false
	}
	c.tried[issuer] = now
	return true
}

func (c *crlCache) load(issuer string) CRL {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lists[issuer]
}

func (c *crlCache) keep(crl CRL) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil {
		c.lists = map[string]CRL{}
	}
	if crl.Number >= c.lists[crl.Issuer].Number {
		c.lists[crl.Issuer] = crl
	}
}

// CRL returns an issuer's revocation list: the last one signed, if it holds all
// that is revoked by now and more than half of its time is left, else a new one.
func (a *Authority) CRL(ctx context.Context, issuerID string) (CRL, error) {
	iss, err := a.issuer(ctx, issuerID)
	if err != nil {
		return CRL{}, err
	}
	if iss.cert == nil {
		return CRL{}, postern.Errorf(postern.NotFound, "CA %s signs SSH certificates: it has a KRL, not a CRL",
			issuerID)
	}
	for range 10 {
		rev, err := a.store.Revision(ctx, issuerID)
		if err != nil {
			return CRL{}, err
		}
		if crl := a.crls.load(issuerID); a.fresh(crl, rev) {
			return crl, nil
		}
		last, err := a.store.CRL(ctx, issuerID)
		if err != nil && postern.CodeOf(err) != postern.NotFound {
			return CRL{}, err
		}
		valid := last.DER != nil && last.Revision == rev && a.now().Before(last.NextUpdate)
		if a.fresh(last, rev) || valid && (iss.signer == nil || !a.crls.due(issuerID, a.now())) {
			a.crls.keep(last)
			return last, nil
		}
		if iss.signer == nil {
			return CRL{}, postern.Errorf(postern.Unavailable,
				"the key of the %s CA is not on this machine: its revocation list cannot be signed again", issuerID)
		}
		validity := a.cfg.CRLValidity
		if iss.Role == Root {
			validity = 365 * day
		}
		crl, ok, err := a.signCRL(ctx, iss, last.Number+1, a.now().Add(validity))
		switch {
		case valid && postern.CodeOf(err) == postern.Unavailable:
			return last, nil // it is complete, and cannot be replaced now
		case err != nil:
			return CRL{}, err
		case ok:
			return crl, nil
		}
		// Another server was first: look at its list.
	}
	return CRL{}, postern.Errorf(postern.Unavailable, "the revocation list of %s changes faster than it can be signed",
		issuerID)
}

func (a *Authority) fresh(crl CRL, revision int64) bool {
	half := crl.ThisUpdate.Add(crl.NextUpdate.Sub(crl.ThisUpdate) / 2)
	return crl.DER != nil && crl.Revision == revision && a.now().Before(half)
}

// signCRL signs and keeps the list of that number. It reports whether no other
// server had kept one of that number before.
func (a *Authority) signCRL(ctx context.Context, iss *issuer, number int64, next time.Time) (CRL, bool, error) {
	now := a.now()
	// What has expired stays until no list that lacks it could still be valid
	// (RFC 5280 section 3.3).
	revoked, revision, err := a.store.Revocations(ctx, iss.ID, now.Add(-a.cfg.CRLValidity))
	if err != nil {
		return CRL{}, false, err
	}
	tmpl := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-a.cfg.Backdate), NextUpdate: next}
	for _, r := range revoked {
		// thisUpdate is backdated for clocks that are behind; no entry may be
		// later than it.
		if r.Time.After(tmpl.ThisUpdate) {
			r.Time = tmpl.ThisUpdate
		}
		n, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return CRL{}, false, postern.Errorf(postern.Internal, "serial %q is not a number", r.Serial)
		}
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: n, RevocationTime: r.Time, ReasonCode: int(r.Reason)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, iss.cert, iss.signer)
	if err != nil {
		return CRL{}, false, postern.Errorf(postern.CodeOf(err), "sign the revocation list of %s: %w", iss.ID, err)
	}
	crl := CRL{
		Issuer: iss.ID, Number: number, Revision: revision, DER: der, ThisUpdate: tmpl.ThisUpdate,
		NextUpdate: tmpl.NextUpdate,
	}
	ok, err := a.store.PutCRL(ctx, crl)
	if err == nil && ok {
		a.crls.keep(crl)
	}
	return crl, ok, err
}

// signRootCRL signs a list of the root that lasts until next.
func (a *Authority) signRootCRL(ctx context.Context, root *issuer, next time.Time) error {
	for range 10 {
		last, err := a.store.CRL(ctx, root.ID)
		if err != nil && postern.CodeOf(err) != postern.NotFound {
			return err
		}
		if _, ok, err := a.signCRL(ctx, root, last.Number+1, next); err != nil || ok {
			return err
		}
	}
	return postern.Errorf(postern.Unavailable, "the root's revocation list is being signed elsewhere")
}
