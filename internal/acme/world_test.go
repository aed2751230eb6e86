package acme_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	client "github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// world is a server with all that it looks at.
type world struct {
	db     *store.DB
	ca     *authority
	dns    *posterntest.DNS
	web    *solver
	server *acme.Server
	url    string
	client *acmez.Client

	httpPort, tlsPort int // where it looks for proofs
}

// solver is a web server that holds HTTP and TLS-ALPN proofs for every name.
type solver struct {
	mu    sync.Mutex
	files map[string]string // path to content
	certs map[string]*tls.Certificate
	dns   *posterntest.DNS
	t     testing.TB
	plain http.HandlerFunc // answers instead, if set
}

func (s *solver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	text, ok := s.files[r.URL.Path]
	plain := s.plain
	s.mu.Unlock()
	switch {
	case plain != nil:
		plain(w, r)
	case ok:
		w.Write([]byte(text))
	default:
		http.NotFound(w, r)
	}
}

func newWorld(t *testing.T, cfg acme.Config) *world {
	t.Helper()
	return newWorldAt(t, cfg, "127.0.0.1")
}

// newWorldAt makes a world whose proofs are at an address of this machine.
func newWorldAt(t *testing.T, cfg acme.Config, address string) *world {
	t.Helper()
	db := storetest.Open(t)
	w := &world{db: db, ca: newAuthority(t, db), dns: posterntest.StartDNS(t)}
	w.web = &solver{files: map[string]string{}, certs: map[string]*tls.Certificate{}, dns: w.dns, t: t}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.Server{Listener: listener, Config: &http.Server{Handler: w.web}}
	web.Start()
	t.Cleanup(web.Close)
	alpn, err := tls.Listen("tcp", net.JoinHostPort(address, "0"), &tls.Config{
		NextProtos: []string{"acme-tls/1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			w.web.mu.Lock()
			defer w.web.mu.Unlock()
			if c, ok := w.web.certs[h.ServerName]; ok {
				return c, nil
			}
			return nil, errors.New("none")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alpn.Close() })
	go func() {
		for {
			c, err := alpn.Accept()
			if err != nil {
				return
			}
			go func() {
				c.(*tls.Conn).Handshake()
				c.Close()
			}()
		}
	}()
	w.httpPort, w.tlsPort = portOf(t, listener.Addr()), portOf(t, alpn.Addr())
	at := netip.MustParseAddr(address)
	prober, err := reach.New(reach.Config{
		Private: []netip.Prefix{netip.PrefixFrom(at, at.BitLen())}, Resolver: w.dns.Addr, HTTPPort: w.httpPort,
		TLSPort: w.tlsPort,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start(t, cfg, prober)
	for _, name := range []string{"alice", "bob"} {
		if err := w.db.People().AddPerson(t.Context(), postern.Person{
			Name:  name,
			Email: name + "@example.com",
		}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) start(t *testing.T, cfg acme.Config, prober acme.Prober) {
	t.Helper()
	var err error
	if w.server, err = acme.New(t.Context(), cfg, w.db.ACME(), w.ca, prober,
		slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.server.Close() })
	front := httptest.NewServer(w.server)
	t.Cleanup(front.Close)
	w.url = front.URL + acme.Prefix
	w.client = &acmez.Client{
		Client: &client.Client{Directory: w.url + "/directory", PollInterval: 10 * time.Millisecond},
		ChallengeSolvers: map[string]acmez.Solver{
			client.ChallengeTypeHTTP01: httpSolver{w.web}, client.ChallengeTypeDNS01: dnsSolver{w.web},
			client.ChallengeTypeTLSALPN01: alpnSolver{w.web},
		},
	}
}

func portOf(t testing.TB, a net.Addr) int {
	t.Helper()
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

type httpSolver struct{ *solver }

func (s httpSolver) Present(_ context.Context, c client.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[c.HTTP01ResourcePath()] = c.KeyAuthorization
	return nil
}

func (s httpSolver) CleanUp(context.Context, client.Challenge) error { return nil }

type dnsSolver struct{ *solver }

func (s dnsSolver) Present(_ context.Context, c client.Challenge) error {
	s.dns.Add(s.t, c.DNS01TXTRecordName(), `TXT "`+c.DNS01KeyAuthorization()+`"`)
	return nil
}

func (s dnsSolver) CleanUp(context.Context, client.Challenge) error { return nil }

type alpnSolver struct{ *solver }

func (s alpnSolver) Present(_ context.Context, c client.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := c.Identifier.Value
	if c.Identifier.Type == "ip" { // RFC 8738 section 6
		if name, err = dns.ReverseAddr(name); err != nil {
			return err
		}
		name = strings.TrimSuffix(name, ".")
	}
	s.certs[name] = cert
	return nil
}

func (s alpnSolver) CleanUp(context.Context, client.Challenge) error { return nil }

// external makes an external key of a person's.
func (w *world) external(t testing.TB, person string) client.EAB {
	t.Helper()
	k := acme.NewExternalKey(person, "test", time.Now())
	if err := w.db.ACME().AddExternalKey(t.Context(), postern.Actor{},
		k, postern.Event{Kind: postern.EventACMEAccount, Person: person}); err != nil {
		t.Fatal(err)
	}
	return client.EAB{KeyID: k.ID, MACKey: base64.RawURLEncoding.EncodeToString(k.Secret)}
}

// account makes an account that is bound to a person.
func (w *world) account(t testing.TB, person string) client.Account {
	t.Helper()
	a := client.Account{Contact: []string{"mailto:" + person + "@example.com"}, PrivateKey: posterntest.NewKey(t)}
	if err := a.SetExternalAccountBinding(t.Context(), w.client.Client, w.external(t, person)); err != nil {
		t.Fatal(err)
	}
	a, err := w.client.NewAccount(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// anyone lets accounts that no person stands for do everything.
func anyone(netip.Addr, []string) bool { return true }

// aliceAtATest is a world in which alice has an account and a.test leads to the
// proofs.
func aliceAtATest(t *testing.T) (*world, client.Account) {
	t.Helper()
	w := newWorld(t, acme.Config{})
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	return w, w.account(t, "alice")
}

// forName is an order for one name, to be made.
func forName(name string) client.Order {
	return client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: name}}}
}

// open makes an order for one name and returns it with its challenge of a kind.
func (w *world) open(t testing.TB, a client.Account, o client.Order, kind string) (client.Order, client.Challenge) {
	t.Helper()
	o, err := w.client.NewOrder(t.Context(), a, o)
	if err != nil {
		t.Fatal(err)
	}
	authz, err := w.client.GetAuthorization(t.Context(), a, o.Authorizations[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range authz.Challenges {
		if c.Type == kind {
			return o, c
		}
	}
	t.Fatal("no challenge", kind)
	return o, client.Challenge{}
}

// prove proves the name of an order over HTTP.
func (w *world) prove(t testing.TB, a client.Account, o client.Order, c client.Challenge) {
	t.Helper()
	if err := (httpSolver{w.web}).Present(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.InitiateChallenge(t.Context(), a, c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.PollAuthorization(t.Context(),
		a, client.Authorization{Location: o.Authorizations[0]}); err != nil {
		t.Fatal(err)
	}
}

// ready makes an order for a.test, which may replace a certificate, and proves
// the name.
func (w *world) ready(t testing.TB, a client.Account, replaces string) client.Order {
	t.Helper()
	wanted := forName("a.test")
	wanted.Replaces = replaces
	o, c := w.open(t, a, wanted, client.ChallengeTypeHTTP01)
	w.prove(t, a, o, c)
	return o
}

// obtain gets a certificate for a.test and returns it with its key.
func (w *world) obtain(t testing.TB, a client.Account) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key := posterntest.NewKey(t)
	certs, err := w.client.ObtainCertificateForSANs(t.Context(), a, key, []string{"a.test"})
	if err != nil {
		t.Fatal(err)
	}
	return key, leaf(t, certs[0].ChainPEM)
}

func csrFor(t testing.TB, key crypto.Signer, names ...string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// kind returns an error's ACME type, or "".
func kind(err error) string {
	var p client.Problem
	if errors.As(err, &p) {
		return strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:")
	}
	return ""
}

func leaf(t testing.TB, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatal("no certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func second[T any](_ T, err error) error { return err }
