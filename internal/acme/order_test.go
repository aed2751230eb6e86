package acme_test

import (
	"crypto/ecdsa"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	client "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
)

func TestOrdersThatAreRefused(t *testing.T) {
	w := newWorld(t, acme.Config{MaxNames: 3, MaxPending: 4})
	alice := w.account(t, "alice")
	for want, names := range map[string][][]client.Identifier{
		"malformed": {
			{},
			{{Type: "dns", Value: "a b"}},
			{{Type: "dns", Value: ""}},
			{{Type: "dns", Value: "*.*.test"}},
			{{Type: "dns", Value: "1.2.3.4"}},
			{{Type: "dns", Value: "a..test"}},
			{{Type: "dns", Value: "bücher.test"}},
			{{Type: "dns", Value: "-a.test"}},
			{{Type: "ip", Value: "::ffff:zz"}},
			{{Type: "ip", Value: "2001:DB8::1"}},
			{{Type: "ip", Value: "fe80::1%lo"}},
			{
				{Type: "dns", Value: "a.test"},
				{Type: "dns", Value: "b.test"},
				{Type: "dns", Value: "c.test"},
				{Type: "dns", Value: "d.test"},
			},
		},
		"unsupportedIdentifier": {{{Type: "email", Value: "a@test"}}},
		"rejectedIdentifier":    {{{Type: "dns", Value: "a.forbidden.test"}}},
	} {
		for _, n := range names {
			if _, err := w.client.NewOrder(t.Context(), alice, client.Order{Identifiers: n}); kind(err) != want {
				t.Errorf("%v: %v, want %s", n, err, want)
			}
		}
	}
	for i := range 5 {
		_, err := w.client.NewOrder(t.Context(), alice, forName("a.test"))
		if want := map[bool]string{true: "rateLimited"}[i == 4]; kind(err) != want {
			t.Errorf("order %d: %v", i, err)
		}
	}
}

func TestAnothersOrderIsNotThere(t *testing.T) {
	w, alice := aliceAtATest(t)
	bob := w.account(t, "bob")
	o, c := w.open(t, alice, forName("a.test"), client.ChallengeTypeHTTP01)
	certs, err := w.client.ObtainCertificateForSANs(t.Context(), alice, posterntest.NewKey(t), []string{"a.test"})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"order":         second(w.client.GetOrder(t.Context(), bob, client.Order{Location: o.Location})),
		"authorization": second(w.client.GetAuthorization(t.Context(), bob, o.Authorizations[0])),
		"challenge":     second(w.client.InitiateChallenge(t.Context(), bob, c)),
		"finalize": second(w.client.FinalizeOrder(t.Context(), bob, o,
			csrFor(t, posterntest.NewKey(t), "a.test"))),
		"certificate": second(w.client.GetCertificateChain(t.Context(), bob, certs[0].URL)),
	} {
		if kind(err) != "malformed" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.client.RevokeCertificate(t.Context(), bob, leaf(t, certs[0].ChainPEM), bob.PrivateKey,
		0); kind(err) != "unauthorized" {
		t.Errorf("revoke: %v", err)
	}
}

func TestFinalizeAsksForJustTheOrdersNames(t *testing.T) {
	w, alice := aliceAtATest(t)
	o, c := w.open(t, alice, forName("a.test"), client.ChallengeTypeHTTP01)
	_, body := w.post(t, alice.PrivateKey.(*ecdsa.PrivateKey), o.Finalize, alice.Location, []byte(`{"csr":""}`))
	if !strings.Contains(string(body), "orderNotReady") {
		t.Errorf("before it is proved: %s", body)
	}
	w.prove(t, alice, o, c)
	for name, csr := range map[string][]byte{
		"another name":      csrFor(t, posterntest.NewKey(t), "b.test"),
		"one name more":     csrFor(t, posterntest.NewKey(t), "a.test", "b.test"),
		"none":              csrFor(t, posterntest.NewKey(t)),
		"the account's key": csrFor(t, alice.PrivateKey.(*ecdsa.PrivateKey), "a.test"),
		"no request":        []byte("x"),
	} {
		if _, err := w.client.FinalizeOrder(t.Context(), alice, o, csr); kind(err) != "badCSR" {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.ca.fail = postern.Errorf(postern.Unavailable, "unavailable")
	if _, err := w.client.FinalizeOrder(t.Context(), alice, o,
		csrFor(t, posterntest.NewKey(t), "a.test")); kind(err) != "serverInternal" {
		t.Errorf("while the authority is unavailable: %v", err)
	}
	w.ca.fail = nil
	if _, err := w.client.FinalizeOrder(t.Context(), alice, o,
		csrFor(t, posterntest.NewKey(t), "a.test")); err != nil {
		t.Errorf("once it is back: %v", err)
	}
}

// TestARaceToFinalizeAnOrder finalizes one order several times at once: all get
// as far as the CA, and all get the same certificate.
func TestARaceToFinalizeAnOrder(t *testing.T) {
	w, alice := aliceAtATest(t)
	o := w.ready(t, alice, "")
	const racers = 4
	w.ca.hold(racers)
	type result struct {
		certificate string
		err         string
	}
	ended := make(chan result, racers)
	for range racers {
		csr := csrFor(t, posterntest.NewKey(t), "a.test")
		own := client.Order{Location: o.Location, Finalize: o.Finalize} // the client reads answers into it
		go func() {
			done, err := w.client.FinalizeOrder(t.Context(), alice, own, csr)
			ended <- result{done.Certificate, kind(err)}
		}()
	}
	first := <-ended
	for range racers - 1 {
		if next := <-ended; next != first {
			t.Errorf("one request got %v, another %v", first, next)
		}
	}
	if first.err != "" || first.certificate == "" {
		t.Errorf("the order ends with certificate %q and error %q", first.certificate, first.err)
	}
	if all, _ := w.ca.issuedCerts(); all != 1 {
		t.Errorf("%d certificates were issued for one order", all)
	}
}

func TestASuspendedPersonsOpenOrderIsNotFinalized(t *testing.T) {
	w, alice := aliceAtATest(t)
	o := w.ready(t, alice, "")
	finalize := func() error {
		return second(w.client.FinalizeOrder(t.Context(), alice, o, csrFor(t, posterntest.NewKey(t), "a.test")))
	}
	if err := w.db.People().SetPersonStatus(t.Context(), "alice", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	if err := finalize(); kind(err) != "unauthorized" {
		t.Errorf("suspended: %v", err)
	}
	if all, _ := w.ca.issuedCerts(); all != 0 {
		t.Errorf("%d certificates were issued", all)
	}
	if err := w.db.People().SetPersonStatus(t.Context(), "alice", postern.PersonActive); err != nil {
		t.Fatal(err)
	}
	w.ca.first = func() { // between the look at who asks and the certificate
		if err := w.db.People().SetPersonStatus(t.Context(), "alice", postern.PersonSuspended); err != nil {
			t.Error(err)
		}
	}
	if err := finalize(); kind(err) != "unauthorized" {
		t.Errorf("suspended meanwhile: %v", err)
	}
	w.ca.first = nil
	if err := w.db.People().SetPersonStatus(t.Context(), "alice", postern.PersonActive); err != nil {
		t.Fatal(err)
	}
	if err := finalize(); err != nil {
		t.Errorf("active again: %v", err)
	}
}

func TestACertificateIsReplacedOnce(t *testing.T) {
	w, alice := aliceAtATest(t)
	_, cert := w.obtain(t, alice)
	old, err := client.ARIUniqueIdentifier(cert)
	if err != nil {
		t.Fatal(err)
	}
	one, two, three := w.ready(t, alice, old), w.ready(t, alice, old), w.ready(t, alice, old)
	if _, err := w.client.FinalizeOrder(t.Context(), alice, two,
		csrFor(t, posterntest.NewKey(t), "a.test")); err != nil {
		t.Fatalf("the first that is finalized: %v", err)
	}
	for name, err := range map[string]error{
		"an order that was open": second(w.client.FinalizeOrder(t.Context(), alice, one,
			csrFor(t, posterntest.NewKey(t), "a.test"))),
		"another that was open": second(w.client.FinalizeOrder(t.Context(), alice, three,
			csrFor(t, posterntest.NewKey(t), "a.test"))),
		"an order that comes after": second(w.client.NewOrder(t.Context(), alice,
			client.Order{Identifiers: one.Identifiers, Replaces: old})),
	} {
		if kind(err) != "alreadyReplaced" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.client.FinalizeOrder(t.Context(), alice, two,
		csrFor(t, posterntest.NewKey(t), "a.test")); err != nil {
		t.Errorf("the first, asked for again: %v", err)
	}
	if all, _ := w.ca.issuedCerts(); all != 2 {
		t.Errorf("%d certificates were issued, want 2", all)
	}
}

// TestARaceToReplaceACertificate finalizes two orders at once: both may get as
// far as the CA, and only one is issued a certificate.
func TestARaceToReplaceACertificate(t *testing.T) {
	w, alice := aliceAtATest(t)
	_, cert := w.obtain(t, alice)
	old, err := client.ARIUniqueIdentifier(cert)
	if err != nil {
		t.Fatal(err)
	}
	orders := []client.Order{w.ready(t, alice, old), w.ready(t, alice, old)}
	w.ca.hold(len(orders))
	failed := make(chan error, len(orders))
	for _, o := range orders {
		csr := csrFor(t, posterntest.NewKey(t), "a.test")
		go func() {
			_, err := w.client.FinalizeOrder(t.Context(), alice, o, csr)
			failed <- err
		}()
	}
	got := []string{kind(<-failed), kind(<-failed)}
	slices.Sort(got)
	if !slices.Equal(got, []string{"", "alreadyReplaced"}) {
		t.Errorf("the two orders end with %q", got)
	}
	if all, good := w.ca.issuedCerts(); all != 2 || good != 2 {
		t.Errorf("%d certificates were issued and %d are good, want 2 of each", all, good)
	}
}

func TestOrdersAreListedPageByPage(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	want := map[string]bool{}
	for range 103 {
		o, err := w.client.NewOrder(t.Context(), alice, forName("a.test"))
		if err != nil {
			t.Fatal(err)
		}
		want[o.Location] = true
	}
	url := alice.Location + "/orders"
	for pages := 0; url != ""; pages++ {
		if pages > 2 {
			t.Fatal("too many pages")
		}
		resp, body := w.post(t, alice.PrivateKey.(*ecdsa.PrivateKey), url, alice.Location, nil)
		var list struct{ Orders []string }
		if err := json.Unmarshal(body, &list); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(err, string(body))
		}
		for _, o := range list.Orders {
			if !want[o] {
				t.Errorf("%s is there twice, or not the account's", o)
			}
			delete(want, o)
		}
		url = ""
		for _, l := range resp.Header.Values("Link") {
			if u, ok := strings.CutSuffix(l, `>;rel="next"`); ok {
				url = u[1:]
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("%d orders are not listed", len(want))
	}
}
