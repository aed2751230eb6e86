package acme_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestNonceIsValidOnceOnAllServers sends what an account signed to one of two
// servers of a store, with a nonce of the other, and then to both again.
func TestNonceIsValidOnceOnAllServers(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	var servers []string
	const base = "https://ca.test/acme"
	for range 2 {
		w.start(t, acme.Config{Shared: true, URL: base}, nil)
		servers = append(servers, w.url)
	}
	id := alice.Location[strings.LastIndex(alice.Location, "/account/"):]
	nonce := w.nonce(t) // the second's
	signed := sign(t, alice.PrivateKey.(*ecdsa.PrivateKey), base+"/new-order", base+id, nonce,
		[]byte(`{"identifiers":[{"type":"dns","value":"a.test"}]}`))
	if resp, body := w.send(t, servers[0]+"/new-order", signed); resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status, string(body))
	}
	for _, server := range servers {
		resp, body := w.send(t, server+"/new-order", signed)
		if resp.StatusCode != http.StatusBadRequest || !bytes.Contains(body, []byte("badNonce")) {
			t.Error("replayed:", resp.Status, string(body))
		}
	}
}

// TestWhatNoAccountSignedWritesNothing signs requests with keys of no account, as
// any client can: they are refused, and the store stays as it is.
func TestWhatNoAccountSignedWritesNothing(t *testing.T) {
	w := newWorld(t, acme.Config{Shared: true})
	before := storetest.Rows(t, w.db)
	for path, payload := range map[string]string{
		"/new-account": `{"termsOfServiceAgreed":true}`,
		"/revoke-cert": `{"certificate":"AAAA"}`,
	} {
		for range 20 {
			key, nonce := posterntest.NewKey(t), w.nonce(t)
			signed := sign(t, key, w.url+path, "", nonce, []byte(payload))
			if resp, body := w.send(t, w.url+path, signed); resp.StatusCode < 400 ||
				bytes.Contains(body, []byte("badNonce")) {
				t.Fatal(path, resp.Status, string(body))
			}
			if resp, body := w.send(t, w.url+path, signed); !bytes.Contains(body, []byte("badNonce")) {
				t.Error("replayed:", path, resp.Status, string(body))
			}
		}
	}
	storetest.SameRows(t, w.db, before)
}

// TestUsedNoncesAreBounded uses nonces up in one slot: older ones are refused, and the
// slot stays one row.
func TestUsedNoncesAreBounded(t *testing.T) {
	db := storetest.Open(t)
	now := time.Now().UnixMicro()
	used := func(slot uint16, made int64) bool {
		t.Helper()
		ok, err := db.ACME().UseNonce(t.Context(), slot, made)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for i := range int64(20) {
		if !used(7, now+i) || used(7, now+i) || used(7, now) {
			t.Fatal("nonce", i)
		}
	}
	if !used(8, now) {
		t.Error("a nonce of another slot was refused")
	}
	ahead := now + 2*acme.NonceReset.Microseconds()
	if !used(7, ahead) || !used(7, now+30) || used(7, now+30) {
		t.Error("a clock that was ahead for a moment spoils a slot for long")
	}
	var n int
	if err := db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COUNT(*) FROM acme_nonces`).Scan(&n)
	}); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
}
