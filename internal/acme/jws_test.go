package acme_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
)

// nonce fetches a fresh nonce.
func (w *world) nonce(t testing.TB) string {
	t.Helper()
	resp, err := http.Head(w.url + "/new-nonce")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get("Replay-Nonce")
}

type nonceSource string

func (n nonceSource) Nonce() (string, error) { return string(n), nil }

// sign makes a request as clients do; kid "" puts the key into it.
func sign(t testing.TB, key *ecdsa.PrivateKey, url, kid, nonce string, payload []byte) []byte {
	t.Helper()
	o := &jose.SignerOptions{NonceSource: nonceSource(nonce), ExtraHeaders: map[jose.HeaderKey]any{"url": url}}
	k := jose.SigningKey{Algorithm: jose.ES256, Key: key}
	if kid == "" {
		o.EmbedJWK = true
	} else {
		k.Key = jose.JSONWebKey{Key: key, KeyID: kid}
	}
	return serialize(t, k, o, payload)
}

// serialize makes a request of a payload.
func serialize(t testing.TB, k jose.SigningKey, o *jose.SignerOptions, payload []byte) []byte {
	t.Helper()
	s, err := jose.NewSigner(k, o)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(jws.FullSerialize())
}

// send posts a body and returns the answer with its problem's kind.
func (w *world) send(t testing.TB, url string, body []byte) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.Post(url, "application/jose+json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, answer
}

func (w *world) post(t testing.TB, key *ecdsa.PrivateKey, url, kid string, payload []byte) (*http.Response, []byte) {
	t.Helper()
	return w.send(t, url, sign(t, key, url, kid, w.nonce(t), payload))
}

func TestRequestsThatAreForged(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice, bob := w.account(t, "alice"), w.account(t, "bob")
	key := alice.PrivateKey.(*ecdsa.PrivateKey)
	url, order := w.url+"/new-order", []byte(`{"identifiers":[{"type":"dns","value":"a.test"}]}`)
	good := sign(t, key, url, alice.Location, w.nonce(t), order)
	if resp, body := w.send(t, url, good); resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status, string(body))
	}
	change := func(f func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(sign(t, key, url, alice.Location, w.nonce(t), order), &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	header := func(f func(h map[string]any)) []byte {
		return change(func(m map[string]any) {
			raw, err := base64.RawURLEncoding.DecodeString(m["protected"].(string))
			if err != nil {
				t.Fatal(err)
			}
			var h map[string]any
			if err := json.Unmarshal(raw, &h); err != nil {
				t.Fatal(err)
			}
			f(h)
			raw, err = json.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			m["protected"] = base64.RawURLEncoding.EncodeToString(raw)
		})
	}
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"sent again":              {good, "badNonce"},
		"with a nonce of its own": {sign(t, key, url, alice.Location, "AAAAAAAAAAAAAAAAAAAAAA", order), "badNonce"},
		"without a nonce":         {header(func(h map[string]any) { delete(h, "nonce") }), "badNonce"},
		"for another address":     {sign(t, key, url+"x", alice.Location, w.nonce(t), order), "unauthorized"},
		"by another account's key": {sign(t, bob.PrivateKey.(*ecdsa.PrivateKey), url, alice.Location, w.nonce(t),
			order), "unauthorized"},
		"by a key that is unknown": {
			sign(t, key, url, w.url+"/account/none", w.nonce(t), order),
			"accountDoesNotExist",
		},
		"by another server's kid": {
			sign(t, key, url, "https://other.test/acme/account/x", w.nonce(t), order),
			"accountDoesNotExist",
		},
		"by jwk where kid belongs": {sign(t, key, url, "", w.nonce(t), order), "malformed"},
		"with alg none":            {header(func(h map[string]any) { h["alg"] = "none" }), "badSignatureAlgorithm"},
		"with an HMAC":             {header(func(h map[string]any) { h["alg"] = "HS256" }), "badSignatureAlgorithm"},
		"with another payload":     {change(func(m map[string]any) { m["payload"] = "e30" }), "unauthorized"},
		"with a header outside": {change(func(m map[string]any) {
			m["header"] = map[string]any{"kid": "x"}
		}), "malformed"},
		"with many signatures": {change(func(m map[string]any) { m["signatures"] = []any{} }), "malformed"},
		"with crit":            {header(func(h map[string]any) { h["crit"] = []string{"x"} }), "malformed"},
		"with both keys": {header(func(h map[string]any) {
			h["jwk"] = jose.JSONWebKey{Key: key.Public()}
		}), "malformed"},
		"with a private key": {header(func(h map[string]any) {
			delete(h, "kid")
			h["jwk"] = jose.JSONWebKey{Key: key}
		}), "malformed"},
		"as nothing":  {nil, "malformed"},
		"as a list":   {[]byte("[]"), "malformed"},
		"as too much": {append([]byte(`{"protected":"`), bytes.Repeat([]byte("a"), 1<<20)...), "malformed"},
	} {
		resp, body := w.send(t, url, c.body)
		var p struct{ Type string }
		if err := json.Unmarshal(body, &p); err != nil {
			t.Errorf("%s: %v %s", name, err, body)
		}
		if p.Type != "urn:ietf:params:acme:error:"+c.want ||
			resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s, want %s", name, body, c.want)
		}
		if resp.Header.Get("Replay-Nonce") == "" {
			t.Errorf("%s: no fresh nonce", name)
		}
	}
	if resp, err := http.Post(url, "application/json", bytes.NewReader(good)); err != nil ||
		resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Error("taken as application/json", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"protected":"eyJhbGciOiJFUzI1NiJ9","payload":"","signature":"AA"}`))
	f.Add([]byte(`{"protected":"","payload":null}`))
	f.Fuzz(func(t *testing.T, body []byte) { acme.ParseForFuzz(body) })
}

// TestWhatIsNotSignedUsesUpNoNonce sends requests whose signature does not hold to
// one of several servers: they write nothing, and their nonce stays good.
func TestWhatIsNotSignedUsesUpNoNonce(t *testing.T) {
	w := newWorld(t, acme.Config{Shared: true})
	alice := w.account(t, "alice")
	url, order := w.url+"/new-order", []byte(`{"identifiers":[{"type":"dns","value":"a.test"}]}`)
	used := func() (n int) {
		t.Helper()
		err := w.db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COUNT(*) FROM acme_nonces`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, nonce := used(), w.nonce(t)
	if resp, body := w.send(t, url, sign(t, posterntest.NewKey(t), url, alice.Location, nonce,
		order)); resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		t.Fatal(resp.Status, string(body))
	}
	if n := used(); n != before {
		t.Errorf("%d nonces were used up by what was not signed", n-before)
	}
	signed := sign(t, alice.PrivateKey.(*ecdsa.PrivateKey), url, alice.Location, nonce, order)
	if resp, body := w.send(t, url, signed); resp.StatusCode != http.StatusCreated {
		t.Error(resp.Status, string(body))
	}
	if resp, body := w.send(t, url, signed); resp.StatusCode != http.StatusBadRequest ||
		!bytes.Contains(body, []byte("badNonce")) {
		t.Error("replayed:", resp.Status, string(body))
	}
	if n := used(); n != before+1 {
		t.Errorf("%d nonces were used up by one request", n-before)
	}
}
