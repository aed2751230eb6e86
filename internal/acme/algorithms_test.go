package acme_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern/internal/acme"
)

// TestAccountsOfEveryAlgorithm makes accounts with keys of every kind, signed by
// another's JOSE.
func TestAccountsOfEveryAlgorithm(t *testing.T) {
	w := newWorld(t, acme.Config{Anonymous: anyone})
	curve := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	factors, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{
		jose.ES256: curve(elliptic.P256()), jose.ES384: curve(elliptic.P384()), jose.ES512: curve(elliptic.P521()),
		jose.EdDSA: edwards, jose.RS256: factors, jose.PS256: factors,
	} {
		url := w.url + "/new-account"
		body := signWith(t, alg, key, url, w.nonce(t), []byte(`{"termsOfServiceAgreed":true}`))
		if resp, answer := w.send(t, url, body); resp.StatusCode != http.StatusCreated &&
			resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", alg, resp.Status, answer)
		}
		for _, wrong := range []func(s string) string{
			func(s string) string { return s[:len(s)/8*4] },
			func(s string) string { return s + "AAAA" },
			func(s string) string { return s[4:len(s)/4*4] + s[:4] + s[len(s)/4*4:] },
		} {
			var m map[string]string
			if err := json.Unmarshal(signWith(t, alg, key, url, w.nonce(t), []byte(`{"termsOfServiceAgreed":true}`)),
				&m); err != nil {
				t.Fatal(err)
			}
			m["signature"] = wrong(m["signature"])
			body, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if resp, answer := w.send(t, url, body); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s with a wrong signature: %s %s", alg, resp.Status, answer)
			}
		}
	}
}

// signWith makes a request that carries its key.
func signWith(t *testing.T, alg jose.SignatureAlgorithm, key crypto.Signer, url, nonce string, payload []byte) []byte {
	t.Helper()
	return serialize(t, jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{
		NonceSource: nonceSource(nonce), ExtraHeaders: map[jose.HeaderKey]any{"url": url}, EmbedJWK: true,
	}, payload)
}
