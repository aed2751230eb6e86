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
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
)

func TestObtain(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "www.example.test", "A 127.0.0.1")
	w.dns.Set(t, "example.test", "A 127.0.0.1")
	for name, c := range map[string]struct {
		names []string
		kinds []string
	}{
		"http":              {[]string{"www.example.test"}, []string{client.ChallengeTypeHTTP01}},
		"dns":               {[]string{"www.example.test"}, []string{client.ChallengeTypeDNS01}},
		"alpn":              {[]string{"www.example.test"}, []string{client.ChallengeTypeTLSALPN01}},
		"wildcard and base": {[]string{"*.example.test", "example.test"}, []string{client.ChallengeTypeDNS01}},
		"address over http": {[]string{"127.0.0.1"}, []string{client.ChallengeTypeHTTP01}},
		"many names at once": {
			[]string{"a.example.test", "b.example.test", "c.example.test", "*.d.example.test"},
			[]string{client.ChallengeTypeDNS01},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := *w.client
			c2.ChallengeSolvers = map[string]acmez.Solver{}
			for _, k := range c.kinds {
				c2.ChallengeSolvers[k] = w.client.ChallengeSolvers[k]
			}
			certs, err := c2.ObtainCertificateForSANs(t.Context(), alice, posterntest.NewKey(t), c.names)
			if err != nil {
				t.Fatal(err)
			}
			l := leaf(t, certs[0].ChainPEM)
			got := l.DNSNames
			for _, ip := range l.IPAddresses {
				got = append(got, ip.String())
			}
			slices.Sort(got)
			slices.Sort(c.names)
			if !slices.Equal(got, c.names) {
				t.Errorf("certified %q, want %q", got, c.names)
			}
		})
	}
}

func TestProofsThatDoNotHold(t *testing.T) {
	w, alice := aliceAtATest(t)
	w.dns.Set(t, "private.test", "A 127.0.0.2")
	w.dns.Set(t, "metadata.test", "A 169.254.169.254")
	w.dns.Set(t, "_acme-challenge.a.test", `TXT "nonsense"`)
	answer := func(f http.HandlerFunc) func() {
		return func() { w.web.mu.Lock(); w.web.plain = f; w.web.mu.Unlock() }
	}
	redirect := func(to string) func() {
		return answer(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, to, http.StatusFound) })
	}
	for name, c := range map[string]struct {
		host, kind, want string
		before           func()
	}{
		"nothing there": {"a.test", client.ChallengeTypeHTTP01, "connection", nil},
		"something else there": {
			"a.test", client.ChallengeTypeHTTP01, "incorrectResponse",
			answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Write([]byte("x"))
			}),
		},
		"endless": {
			"a.test", client.ChallengeTypeHTTP01, "connection",
			answer(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Write(make([]byte, 1<<20))
			}),
		},
		"redirect to metadata": {
			"a.test", client.ChallengeTypeHTTP01, "connection",
			redirect("http://169.254.169.254/x"),
		},
		"redirect to another port": {
			"a.test", client.ChallengeTypeHTTP01, "connection",
			redirect("http://a.test:22/x"),
		},
		"redirect to a file": {
			"a.test", client.ChallengeTypeHTTP01, "connection",
			redirect("file:///etc/passwd"),
		},
		"redirect in a circle":     {"a.test", client.ChallengeTypeHTTP01, "connection", redirect("/again")},
		"a private address":        {"private.test", client.ChallengeTypeHTTP01, "connection", nil},
		"a link-local address":     {"metadata.test", client.ChallengeTypeHTTP01, "connection", nil},
		"a name that is not there": {"none.test", client.ChallengeTypeHTTP01, "connection", nil},
		"no TXT record":            {"b.test", client.ChallengeTypeDNS01, "dns", nil},
		"another TXT record":       {"a.test", client.ChallengeTypeDNS01, "incorrectResponse", nil},
		"no TLS certificate":       {"a.test", client.ChallengeTypeTLSALPN01, "tls", nil},
	} {
		t.Run(name, func(t *testing.T) {
			answer(nil)()
			if c.before != nil {
				c.before()
			}
			o, ch := w.open(t, alice, forName(c.host), c.kind)
			if _, err := w.client.InitiateChallenge(t.Context(), alice, ch); err != nil {
				t.Fatal(err)
			}
			a, _ := w.client.PollAuthorization(t.Context(), alice, client.Authorization{Location: o.Authorizations[0]})
			o, err := w.client.GetOrder(t.Context(), alice, o)
			if err != nil || o.Status != client.StatusInvalid || a.Status != client.StatusInvalid {
				t.Fatalf("order %s, authorization %s, %v", o.Status, a.Status, err)
			}
			if got := kind(*o.Error); got != c.want {
				t.Errorf("%s (%s), want %s", got, o.Error.Detail, c.want)
			}
		})
	}
}

// inside counts the connections to an address that validation must not connect to.
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

// TestDNSRebinding checks that validation does not connect to an internal address
// of a name that first resolved to an allowed one.
func TestDNSRebinding(t *testing.T) {
	for name, kindOf := range map[string]string{
		"http": client.ChallengeTypeHTTP01,
		"alpn": client.ChallengeTypeTLSALPN01,
	} {
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
				o, c := w.open(t, alice, forName("a.test"), kindOf)
				if _, err := w.client.InitiateChallenge(t.Context(), alice, c); err != nil {
					t.Fatal(err)
				}
				a, _ := w.client.PollAuthorization(t.Context(), alice,
					client.Authorization{Location: o.Authorizations[0]})
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
			certs, err := c2.ObtainCertificateForSANs(t.Context(), w.account(t, "alice"), posterntest.NewKey(t),
				[]string{"::1"})
			if err != nil {
				t.Fatal(err)
			}
			if l := leaf(t, certs[0].ChainPEM); len(l.IPAddresses) != 1 || !l.IPAddresses[0].Equal(net.IPv6loopback) ||
				len(l.DNSNames) > 0 {
				t.Errorf("certified %v %v", l.IPAddresses, l.DNSNames)
			}
		})
	}
}
