package acme_test

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"hash"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	client "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
)

func TestACertificateEndsWhenTheOrderSays(t *testing.T) {
	w, alice := aliceAtATest(t)
	end := time.Now().Add(10 * time.Minute)
	wanted := forName("a.test")
	wanted.NotAfter = &end
	for _, replaces := range []string{"", "the first"} {
		if replaces != "" {
			_, first := w.obtain(t, alice)
			var err error
			if wanted.Replaces, err = client.ARIUniqueIdentifier(first); err != nil {
				t.Fatal(err)
			}
		}
		o, c := w.open(t, alice, wanted, client.ChallengeTypeHTTP01)
		if o.NotAfter == nil || !o.NotAfter.Equal(end.Truncate(time.Second)) || o.NotBefore != nil {
			t.Errorf("the order says %v to %v, want nothing to %v", o.NotBefore, o.NotAfter, end)
		}
		w.prove(t, alice, o, c)
		o, err := w.client.FinalizeOrder(t.Context(), alice, o, csrFor(t, posterntest.NewKey(t), "a.test"))
		if err != nil {
			t.Fatal(err)
		}
		chain, err := w.client.GetCertificateChain(t.Context(), alice, o.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if got := leaf(t, chain[0].ChainPEM).NotAfter; !got.Equal(end.Truncate(time.Second)) {
			t.Errorf("the certificate ends at %v, want %v", got, end)
		}
	}
	for name, end := range map[string]time.Time{
		"too late": time.Now().Add(2 * longest),
		"past":     time.Now().Add(-time.Minute),
	} {
		wanted.NotAfter, wanted.Replaces = &end, ""
		if _, err := w.client.NewOrder(t.Context(), alice, wanted); kind(err) != "malformed" {
			t.Errorf("an end that is %s: %v", name, err)
		}
	}
}

func TestProfiles(t *testing.T) {
	w, alice := aliceAtATest(t)
	var directory struct {
		Meta struct {
			Profiles map[string]string `json:"profiles"`
		} `json:"meta"`
	}
	resp, err := http.Get(w.url + "/directory")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&directory); err != nil || directory.Meta.Profiles["short"] == "" {
		t.Fatalf("the directory's profiles are %v (%v)", directory.Meta.Profiles, err)
	}
	for asked, want := range map[string]string{"": "server", "short": "short"} {
		o := forName("a.test")
		o.Profile = asked
		if o, err = w.client.NewOrder(t.Context(), alice, o); err != nil || o.Profile != want {
			t.Errorf("an order for the profile %q says %q (%v)", asked, o.Profile, err)
		}
	}
	order := []byte(`{"identifiers":[{"type":"dns","value":"a.test"}],"profile":"other"}`)
	refused, body := w.post(t, alice.PrivateKey.(*ecdsa.PrivateKey), w.url+"/new-order", alice.Location, order)
	if refused.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "acme:error:invalidProfile") {
		t.Errorf("a profile that does not exist: %s %s", refused.Status, body)
	}
}

// TestNamesOfAnotherFormAreRefusedAtOnce holds that no name is accepted for an order
// that the certificate could not have just so.
func TestNamesOfAnotherFormAreRefusedAtOnce(t *testing.T) {
	w, alice := aliceAtATest(t)
	for _, id := range []client.Identifier{
		{Type: "ip", Value: "::ffff:192.0.2.1"},
		{Type: "ip", Value: "::FFFF:c000:201"},
		{Type: "ip", Value: "2001:DB8::1"},
		{Type: "ip", Value: "192.0.2.01"},
		{Type: "ip", Value: "fe80::1%eth0"},
		{Type: "dns", Value: "192.0.2.1"},
		{Type: "dns", Value: "::1"},
		{Type: "dns", Value: "a..test"},
		{Type: "dns", Value: "*.*.a.test"},
	} {
		if _, err := w.client.NewOrder(t.Context(), alice,
			client.Order{Identifiers: []client.Identifier{id}}); kind(err) != "malformed" {
			t.Errorf("%s %s: %v", id.Type, id.Value, err)
		}
	}
}

// TestExternalBindingByEveryMAC binds accounts by each MAC of RFC 7518, written here by
// hand.
func TestExternalBindingByEveryMAC(t *testing.T) {
	w := newWorld(t, acme.Config{})
	for alg, of := range map[string]func() hash.Hash{
		"HS256": sha256.New, "HS384": sha512.New384,
		"HS512": sha512.New,
	} {
		eab := w.external(t, "alice")
		secret, err := base64.RawURLEncoding.DecodeString(eab.MACKey)
		if err != nil {
			t.Fatal(err)
		}
		key := posterntest.NewKey(t)
		url := w.url + "/new-account"
		bind := func(alg string, of func() hash.Hash) []byte {
			head := encode(t, map[string]string{"alg": alg, "kid": eab.KeyID, "url": url})
			payload := encode(t, jose.JSONWebKey{Key: key.Public()})
			mac := hmac.New(of, secret)
			mac.Write([]byte(head + "." + payload))
			body, err := json.Marshal(map[string]any{"externalAccountBinding": map[string]string{
				"protected": head, "payload": payload, "signature": base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
			}})
			if err != nil {
				t.Fatal(err)
			}
			return body
		}
		for name, body := range map[string][]byte{"no MAC": bind("none", of), "another": bind("HS1", of)} {
			if resp, answer := w.send(t, url, signWith(t, "ES256", key, url, w.nonce(t),
				body)); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %s %s", name, resp.Status, answer)
			}
		}
		if resp, answer := w.send(t, url, signWith(t, "ES256", key, url, w.nonce(t),
			bind(alg, sha512.New512_256))); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s, computed otherwise: %s %s", alg, resp.Status, answer)
		}
		if resp, answer := w.send(t, url, signWith(t, "ES256", key, url, w.nonce(t),
			bind(alg, of))); resp.StatusCode != http.StatusCreated {
			t.Errorf("%s: %s %s", alg, resp.Status, answer)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// TestAnonymousAccounts holds that an account that no person stands for may act only
// from the networks and for the names that are permitted, at each step.
func TestAnonymousAccounts(t *testing.T) {
	from := netip.MustParseAddr("10.0.0.1")
	permitted := []string{".lan.test"}
	w := newWorld(t, acme.Config{
		Address: func(*http.Request) netip.Addr { return from },
		Anonymous: func(from netip.Addr, names []string) bool {
			return from == netip.MustParseAddr("10.0.0.1") && !slices.ContainsFunc(names, func(n string) bool {
				return !slices.ContainsFunc(permitted, func(s string) bool { return strings.HasSuffix(n, s) })
			})
		},
	})
	w.dns.Set(t, "a.lan.test", "A 127.0.0.1")
	account, err := w.client.NewAccount(t.Context(), client.Account{PrivateKey: posterntest.NewKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.NewOrder(t.Context(), account, forName("www.test")); kind(err) != "rejectedIdentifier" {
		t.Errorf("another name: %v", err)
	}
	o, c := w.open(t, account, forName("a.lan.test"), client.ChallengeTypeHTTP01)
	w.prove(t, account, o, c)
	finalize := func() error {
		_, err := w.client.FinalizeOrder(t.Context(), account, o, csrFor(t, posterntest.NewKey(t), "a.lan.test"))
		return err
	}
	permitted = nil
	if err := finalize(); kind(err) != "unauthorized" {
		t.Errorf("a name that is not permitted any more: %v", err)
	}
	permitted = []string{".lan.test"}
	from = netip.MustParseAddr("192.0.2.1")
	if err := finalize(); kind(err) != "unauthorized" {
		t.Errorf("from elsewhere: %v", err)
	}
	if _, err := w.client.NewAccount(t.Context(),
		client.Account{PrivateKey: posterntest.NewKey(t)}); kind(err) != "externalAccountRequired" {
		t.Errorf("a new account from elsewhere: %v", err)
	}
	from = netip.MustParseAddr("10.0.0.1")
	if err := finalize(); err != nil {
		t.Errorf("permitted again: %v", err)
	}
}
