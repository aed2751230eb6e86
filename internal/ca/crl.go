package ca

import (
	"context"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// crlCache holds the newest list of each issuer that this process has seen.
type crlCache struct {
	mu    sync.Mutex
	lists map[string]CRL
	tried map[string]time.Time // when an issuer's key was last asked for one
	busy  map[string]chan struct{}
}

// turn waits until no other caller makes an issuer's list, which takes long of a long one, and
// returns what ends the turn.
func (c *crlCache) turn(ctx context.Context, issuer string) (func(), error) {
	c.mu.Lock()
	if c.busy == nil {
		c.busy = map[string]chan struct{}{}
	}
	if c.busy[issuer] == nil {
		c.busy[issuer] = make(chan struct{}, 1)
	}
	one := c.busy[issuer]
	c.mu.Unlock()
	select {
	case one <- struct{}{}:
		return func() { <-one }, nil
	case <-ctx.Done():
		return nil, postern.Errorf(postern.Unavailable, "wait for the revocation list of %s: %w", issuer, ctx.Err())
	}
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
// that is revoked by now, its time has begun and more than half of it is left, else a new one.
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
		if crl, ok, err := a.newestCRL(ctx, iss, rev); ok || err != nil {
			return crl, err
		}
		// Another server was first: look at its list.
	}
	return CRL{}, postern.Errorf(postern.Unavailable, "the revocation list of %s changes faster than it can be signed",
		issuerID)
}

// newestCRL returns the list in the store, if it holds all up to a revision, else a new one.
// It reports false if another server has signed one meanwhile.
func (a *Authority) newestCRL(ctx context.Context, iss *issuer, revision int64) (CRL, bool, error) {
	done, err := a.crls.turn(ctx, iss.ID)
	if err != nil {
		return CRL{}, false, err
	}
	defer done()
	if crl := a.crls.load(iss.ID); a.fresh(crl, revision) {
		return crl, true, nil
	}
	last, err := a.lastCRL(ctx, iss.ID)
	if err != nil {
		return CRL{}, false, err
	}
	valid := last.DER != nil && last.Revision == revision && a.now().Before(last.NextUpdate)
	if a.fresh(last, revision) || valid && (iss.signer == nil || !a.crls.due(iss.ID, a.now())) {
		a.crls.keep(last)
		return last, true, nil
	}
	if iss.signer == nil {
		return CRL{}, false, postern.Errorf(postern.Unavailable,
			"the key of the %s CA is not on this machine: its revocation list cannot be signed again", iss.ID)
	}
	validity := a.cfg.CRLValidity
	if iss.Role == Root {
		validity = 365 * day
	}
	crl, ok, err := a.signCRL(ctx, iss, last, a.now().Add(validity))
	if valid && postern.CodeOf(err) == postern.Unavailable {
		return last, true, nil // it is complete, and cannot be replaced now
	}
	return crl, ok, err
}

// lastCRL returns the newest list in the store, or none. One that is known here is not read
// again.
func (a *Authority) lastCRL(ctx context.Context, issuer string) (CRL, error) {
	known := a.crls.load(issuer)
	last, err := a.store.CRL(ctx, issuer, known.Number)
	if postern.CodeOf(err) == postern.NotFound {
		return CRL{}, nil
	}
	if last.Number == known.Number {
		last.DER = known.DER
	}
	return last, err
}

func (a *Authority) fresh(crl CRL, revision int64) bool {
	half := crl.ThisUpdate.Add(crl.NextUpdate.Sub(crl.ThisUpdate) / 2)
	now := a.now() // before the list's time if a clock was ahead
	return crl.DER != nil && crl.Revision == revision && !now.Before(crl.ThisUpdate) && now.Before(half)
}

// signCRL signs and keeps the list that follows last. It reports whether no other
// server had kept one of that number before.
func (a *Authority) signCRL(ctx context.Context, iss *issuer, last CRL, next time.Time) (CRL, bool, error) {
	crl := CRL{
		Issuer: iss.ID, Number: last.Number + 1, ThisUpdate: a.now().Add(-a.cfg.Backdate), NextUpdate: next,
		Complete: last.Complete,
	}
	entries, added, ok, err := a.addedTo(ctx, iss, last, &crl)
	if err == nil && !ok {
		entries, err = a.allEntries(ctx, iss, &crl)
	}
	if err != nil {
		return CRL{}, false, err
	}
	if crl.DER, err = iss.signList(crl, entries, added); err != nil {
		return CRL{}, false, postern.Errorf(postern.CodeOf(err), "sign the revocation list of %s: %w", iss.ID, err)
	}
	ok, err = a.store.PutCRL(ctx, crl)
	if err == nil && ok {
		a.crls.keep(crl)
	}
	return crl, ok, err
}

// allEntries returns the entries of a list, made of all that is revoked.
func (a *Authority) allEntries(ctx context.Context, iss *issuer, crl *CRL) ([]byte, error) {
	// What has expired stays until no list that lacks it could still be valid
	// (RFC 5280 section 3.3).
	crl.Complete = a.now()
	all, revision, err := a.store.Revocations(ctx, iss.ID, crl.Complete.Add(-a.cfg.CRLValidity), -1)
	if err != nil {
		return nil, err
	}
	crl.Revision = revision
	return encodeRevocations(all, crl.ThisUpdate)
}

// addedTo returns the entries of the last list and those of what was revoked since: of a long
// list that takes a small part of the time. It reports false if all are to be read anew: to
// leave out what has expired, or since the last list or a revocation is not as this program
// records it, or is of a clock that was ahead.
func (a *Authority) addedTo(
	ctx context.Context, iss *issuer, last CRL, crl *CRL,
) (entries, added []byte, ok bool, err error) {
	if age := a.now().Sub(last.Complete); age < 0 || age > a.cfg.CRLValidity/2 {
		return nil, nil, false, nil
	}
	if entries, ok = iss.listed(last.DER); !ok {
		return nil, nil, false, nil
	}
	since, revision, err := a.store.Revocations(ctx, iss.ID, time.Time{}, last.Revision)
	if err != nil {
		return nil, nil, false, err
	}
	revisions := map[int64]bool{}
	for _, r := range since {
		revisions[r.Revision] = true
	}
	if int64(len(revisions)) != revision-last.Revision {
		return nil, nil, false, nil
	}
	crl.Revision = revision
	added, err = encodeRevocations(since, crl.ThisUpdate)
	return entries, added, true, err
}

// signRootCRL signs a list of the root that lasts until next.
func (a *Authority) signRootCRL(ctx context.Context, root *issuer, next time.Time) error {
	for range 10 {
		last, err := a.lastCRL(ctx, root.ID)
		if err != nil {
			return err
		}
		if _, ok, err := a.signCRL(ctx, root, last, next); err != nil || ok {
			return err
		}
	}
	return postern.Errorf(postern.Unavailable, "the root's revocation list is being signed elsewhere")
}
