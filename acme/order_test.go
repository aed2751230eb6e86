package acme_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mholt/acmez/v3"
	client "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/acme"
	"github.com/postern-project/postern/posterntest"
)

// readyOrder makes an order for a.test and proves the name.
func (w *world) readyOrder(t *testing.T, a client.Account, replaces string) client.Order {
	t.Helper()
	o, err := w.client.NewOrder(t.Context(), a, client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: "a.test"}}, Replaces: replaces})
	if err != nil {
		t.Fatal(err)
	}
	authz, err := w.client.GetAuthorization(t.Context(), a, o.Authorizations[0])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(authz.Challenges, func(c client.Challenge) bool { return c.Type == client.ChallengeTypeHTTP01 })
	if err := (httpSolver{w.web}).Present(t.Context(), authz.Challenges[i]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.InitiateChallenge(t.Context(), a, authz.Challenges[i]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.PollAuthorization(t.Context(), a, authz); err != nil {
		t.Fatal(err)
	}
	return o
}

// issuedCerts counts what was issued, and what of it is not revoked.
func (a *authority) issuedCerts() (all, good int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.issued {
		if !c.Revoked {
			good++
		}
	}
	return len(a.issued), good
}

func TestACertificateIsReplacedOnce(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	certs, err := w.client.ObtainCertificateForSANs(t.Context(), alice, newKey(t), []string{"a.test"})
	if err != nil {
		t.Fatal(err)
	}
	old, err := client.ARIUniqueIdentifier(leaf(t, certs[0].ChainPEM))
	if err != nil {
		t.Fatal(err)
	}
	one, two, three := w.readyOrder(t, alice, old), w.readyOrder(t, alice, old), w.readyOrder(t, alice, old)
	if _, err := w.client.FinalizeOrder(t.Context(), alice, two, csrFor(t, newKey(t), "a.test")); err != nil {
		t.Fatalf("the first that is finalized: %v", err)
	}
	for name, err := range map[string]error{
		"an order that was open":    second(w.client.FinalizeOrder(t.Context(), alice, one, csrFor(t, newKey(t), "a.test"))),
		"another that was open":     second(w.client.FinalizeOrder(t.Context(), alice, three, csrFor(t, newKey(t), "a.test"))),
		"an order that comes after": second(w.client.NewOrder(t.Context(), alice, client.Order{Identifiers: one.Identifiers, Replaces: old})),
	} {
		if kind(err) != "alreadyReplaced" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.client.FinalizeOrder(t.Context(), alice, two, csrFor(t, newKey(t), "a.test")); err != nil {
		t.Errorf("the first, asked for again: %v", err)
	}
	if all, _ := w.ca.issuedCerts(); all != 2 {
		t.Errorf("%d certificates were issued, want 2", all)
	}
}

// TestARaceToReplaceACertificate finalizes two orders at once: both may get as
// far as the CA, and only one is issued a certificate.
func TestARaceToReplaceACertificate(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	certs, err := w.client.ObtainCertificateForSANs(t.Context(), alice, newKey(t), []string{"a.test"})
	if err != nil {
		t.Fatal(err)
	}
	old, err := client.ARIUniqueIdentifier(leaf(t, certs[0].ChainPEM))
	if err != nil {
		t.Fatal(err)
	}
	orders := []client.Order{w.readyOrder(t, alice, old), w.readyOrder(t, alice, old)}
	w.ca.hold(len(orders))
	failed := make(chan error, len(orders))
	for _, o := range orders {
		csr := csrFor(t, newKey(t), "a.test")
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

// TestARaceToFinalizeAnOrder finalizes one order several times at once: all get
// as far as the CA, and all are told of the one certificate.
func TestARaceToFinalizeAnOrder(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	o := w.readyOrder(t, alice, "")
	const racers = 4
	w.ca.hold(racers)
	type result struct {
		certificate string
		err         string
	}
	ended := make(chan result, racers)
	for range racers {
		csr := csrFor(t, newKey(t), "a.test")
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
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	o := w.readyOrder(t, alice, "")
	finalize := func() error {
		return second(w.client.FinalizeOrder(t.Context(), alice, o, csrFor(t, newKey(t), "a.test")))
	}
	if err := w.db.SetPersonStatus(t.Context(), "alice", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	if err := finalize(); kind(err) != "unauthorized" {
		t.Errorf("suspended: %v", err)
	}
	if all, _ := w.ca.issuedCerts(); all != 0 {
		t.Errorf("%d certificates were issued", all)
	}
	if err := w.db.SetPersonStatus(t.Context(), "alice", postern.PersonActive); err != nil {
		t.Fatal(err)
	}
	if err := finalize(); err != nil {
		t.Errorf("active again: %v", err)
	}
}

// inside counts who connects to an address where no proof may be looked for.
func (w *world) inside(t *testing.T) *atomic.Int32 {
	t.Helper()
	var came atomic.Int32
	for _, port := range []int{w.httpPort, w.tlsPort} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				came.Add(1)
				c.Close()
			}
		}()
	}
	return &came
}

// TestDNSThatChangesItsMind holds that a name that leads to an allowed address
// when it is looked at first, and inward after that, leads nobody inward.
func TestDNSThatChangesItsMind(t *testing.T) {
	for name, kindOf := range map[string]string{"http": client.ChallengeTypeHTTP01, "alpn": client.ChallengeTypeTLSALPN01} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, acme.Config{})
			alice := w.account(t, "alice")
			inward := w.inside(t)
			w.dns.Set(t, "a.test", "A 127.0.0.1")
			w.dns.Vary(func(_ string, n int) []string {
				if n == 0 {
					return []string{"127.0.0.1"}
				}
				return []string{"169.254.169.254", "127.0.0.2"}
			})
			w.web.mu.Lock()
			w.web.plain = func(rw http.ResponseWriter, r *http.Request) { // so that the name is looked up again
				http.Redirect(rw, r, fmt.Sprintf("http://a.test:%d/again", w.httpPort), http.StatusFound)
			}
			w.web.mu.Unlock()
			for range 2 {
				o, c := prepare(t, w, alice, "a.test", kindOf)
				if _, err := w.client.InitiateChallenge(t.Context(), alice, c); err != nil {
					t.Fatal(err)
				}
				a, _ := w.client.PollAuthorization(t.Context(), alice, client.Authorization{Location: o.Authorizations[0]})
				if a.Status != client.StatusInvalid {
					t.Errorf("the authorization is %s", a.Status)
				}
			}
			if n := inward.Load(); n > 0 {
				t.Errorf("%d connections went inward", n)
			}
		})
	}
}

func TestIPv6Addresses(t *testing.T) {
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		posterntest.Missing(t, "needs the address ::1: %v", err)
	}
	probe.Close()
	for _, c := range []string{client.ChallengeTypeHTTP01, client.ChallengeTypeTLSALPN01} {
		t.Run(c, func(t *testing.T) {
			w := newWorldAt(t, acme.Config{}, "::1")
			c2 := *w.client
			c2.ChallengeSolvers = map[string]acmez.Solver{c: w.client.ChallengeSolvers[c]}
			certs, err := c2.ObtainCertificateForSANs(t.Context(), w.account(t, "alice"), newKey(t), []string{"::1"})
			if err != nil {
				t.Fatal(err)
			}
			if l := leaf(t, certs[0].ChainPEM); len(l.IPAddresses) != 1 || !l.IPAddresses[0].Equal(net.IPv6loopback) || len(l.DNSNames) > 0 {
				t.Errorf("certified %v %v", l.IPAddresses, l.DNSNames)
			}
		})
	}
}
