package otp_test

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// TestKeysAreSealedAgainWhileServing changes the key-encrypting key under a
// server that goes on to check codes, and then takes the old one away.
func TestKeysAreSealedAgainWhileServing(t *testing.T) {
	url := filepath.Join(t.TempDir(), "postern.db")
	before, after := [32]byte{'a'}, [32]byte{'b'}
	old := newRig(t, store.Config{URL: url, Key: before}, otp.Config{})
	old.client1(t)
	old.people(t, "alice")
	must(t, old.otp.SetUpstream(t.Context(), otp.ClientConfig{ID: 7, Key: apiKey, URLs: []string{otp.YubiCloud}}))
	totp := otp.NewOATH(postern.TOTP, "alice", "phone")
	must(t, old.otp.AddOATH(t.Context(), postern.Actor{}, totp))
	var tokens []*otp.SoftToken
	for range 300 { // more than one page
		tokens = append(tokens, otp.NewSoftToken())
	}
	var keys []*otp.Key
	for _, tok := range tokens {
		keys = append(keys, &otp.Key{PublicID: tok.PublicID, Secret: &tok.Secret, Person: "alice", Last: otp.Never})
	}
	must(t, old.otp.AddKeys(t.Context(), postern.Actor{}, keys, false))
	must(t, old.db.Close())

	h := newRig(t, store.Config{URL: url, Key: after, OldKeys: [][32]byte{before}}, otp.Config{})
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; !done.Load() || n < 20; n++ {
				if status, err := presentTo(http1, h.server.URL, touch(t,
					tokens[i*50+n%50])); status != otp.StatusOK || err != nil {
					t.Errorf("while keys are sealed again a code is answered %s, %v", status, err)
					return
				}
			}
		})
	}
	n, err := h.db.Rewrap(t.Context())
	done.Store(true)
	wg.Wait()
	if err != nil || n < 300+3 { // keys, API client, upstream service, TOTP; the log's key too
		t.Errorf("%d values were sealed again, %v", n, err)
	}
	must(t, h.db.Close())

	h = newRig(t, store.Config{URL: url, Key: after}, otp.Config{})
	if got, err := h.otp.Keys(t.Context(), ""); err != nil || len(got) != 300 {
		t.Errorf("without the old key %d keys can be read, %v", len(got), err)
	}
	if status, err := presentTo(http1, h.server.URL, touch(t, tokens[299])); status != otp.StatusOK || err != nil {
		t.Errorf("without the old key a code is answered %s, %v", status, err)
	}
	if c, err := h.otp.Upstream(t.Context()); err != nil || string(c.Key) != string(apiKey) {
		t.Errorf("the upstream service's key: %v", err)
	}
	if d, err := h.otp.OATHs(t.Context(), "alice"); err != nil || len(d) != 1 ||
		string(d[0].Secret) != string(totp.Secret) {
		t.Errorf("the TOTP secret: %v", err)
	}
}

// TestSecretsAreBoundToTheirKey moves one key's sealed secret to another: it
// must not open there.
func TestSecretsAreBoundToTheirKey(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	a, b := h.token(t, ""), h.token(t, "")
	h.exec(t, `UPDATE otp_keys SET sealed = (SELECT sealed FROM otp_keys WHERE public_id = $1)
		WHERE public_id = $2`, a.PublicID, b.PublicID)
	b.Secret = a.Secret
	if status, err := presentTo(http1, h.server.URL, touch(t, b)); status != otp.StatusBackendError || err != nil {
		t.Errorf("a code under a secret that was moved is answered %s, %v", status, err)
	}
}
