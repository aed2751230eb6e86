package acme_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	client "github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/acme"
	"github.com/postern-project/postern/posterntest"
	"github.com/postern-project/postern/reach"
	"github.com/postern-project/postern/store"
	"github.com/postern-project/postern/store/storetest"
)

// authority is a small CA for tests of the protocol alone.
type authority struct {
	db   *store.DB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu     sync.Mutex
	issued map[string]acme.Certificate
	fail   error
	gather *sync.WaitGroup // see hold
}

// hold lets none of the next n issuances go on before all have come.
func (a *authority) hold(n int) {
	a.gather = new(sync.WaitGroup)
	a.gather.Add(n)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t testing.TB, db *store.DB) *authority {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	storetest.AddIssuer(t, db, der)
	return &authority{db: db, key: key, cert: cert, issued: map[string]acme.Certificate{}}
}

func (a *authority) Permit(names []string) error {
	for _, n := range names {
		if strings.HasSuffix(n, ".forbidden.test") {
			return postern.Errorf(postern.Denied, "the root may not vouch for it")
		}
	}
	return nil
}

func (a *authority) PermitKey(context.Context, crypto.PublicKey) error { return nil }

func (a *authority) Issue(ctx context.Context, csr []byte, names []string, _ acme.Origin) (string, error) {
	if a.gather != nil {
		a.gather.Done()
		a.gather.Wait()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return "", a.fail
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return "", err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, req.PublicKey, a.key)
	if err != nil {
		return "", err
	}
	if err := storetest.AddCertificate(ctx, a.db, serial.Text(16), der); err != nil {
		return "", err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	a.issued[serial.Text(16)] = acme.Certificate{
		Chain: chain, DER: der, AuthorityKeyID: a.cert.SubjectKeyId, Names: names, NotBefore: tmpl.NotBefore, NotAfter: tmpl.NotAfter,
	}
	return serial.Text(16), nil
}

func (a *authority) Certificate(_ context.Context, serial string) (acme.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.issued[serial]
	if !ok {
		return c, postern.Errorf(postern.NotFound, "no such certificate")
	}
	return c, nil
}

func (a *authority) Revoke(_ context.Context, serial string, _ int, _ acme.Origin) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.issued[serial]
	if c.Revoked {
		return postern.Errorf(postern.Conflict, "revoked already")
	}
	c.Revoked = true
	a.issued[serial] = c
	return nil
}

func (a *authority) ValidReason(n int) bool { return n == 0 || n == 1 || n == 4 }

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
		Private: []netip.Prefix{netip.PrefixFrom(at, at.BitLen())}, Resolver: w.dns.Addr, HTTPPort: w.httpPort, TLSPort: w.tlsPort,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start(t, cfg, prober)
	for _, name := range []string{"alice", "bob"} {
		if err := w.db.AddPerson(t.Context(), postern.Person{Name: name, Email: name + "@example.com"}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) start(t *testing.T, cfg acme.Config, prober acme.Prober) {
	t.Helper()
	var err error
	if w.server, err = acme.New(t.Context(), cfg, w.db, w.ca, prober, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.server.Close() })
	front := httptest.NewServer(w.server)
	t.Cleanup(front.Close)
	w.url = front.URL + acme.Prefix
	w.client = &acmez.Client{
		Client: &client.Client{Directory: w.url + "/directory", PollInterval: 10 * time.Millisecond},
		ChallengeSolvers: map[string]acmez.Solver{
			client.ChallengeTypeHTTP01: httpSolver{w.web}, client.ChallengeTypeDNS01: dnsSolver{w.web}, client.ChallengeTypeTLSALPN01: alpnSolver{w.web},
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
	if err := w.db.AddACMEExternalKey(t.Context(), k, postern.Event{Kind: postern.EventACMEAccount, Person: person}); err != nil {
		t.Fatal(err)
	}
	return client.EAB{KeyID: k.ID, MACKey: base64.RawURLEncoding.EncodeToString(k.Secret)}
}

// account makes an account that is bound to a person.
func (w *world) account(t testing.TB, person string) client.Account {
	t.Helper()
	a := client.Account{Contact: []string{"mailto:" + person + "@example.com"}, PrivateKey: newKey(t)}
	if err := a.SetExternalAccountBinding(t.Context(), w.client.Client, w.external(t, person)); err != nil {
		t.Fatal(err)
	}
	a, err := w.client.NewAccount(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return a
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

func TestObtain(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "www.example.test", "A 127.0.0.1")
	w.dns.Set(t, "example.test", "A 127.0.0.1")
	for name, c := range map[string]struct {
		names []string
		kinds []string
	}{
		"http":               {[]string{"www.example.test"}, []string{client.ChallengeTypeHTTP01}},
		"dns":                {[]string{"www.example.test"}, []string{client.ChallengeTypeDNS01}},
		"alpn":               {[]string{"www.example.test"}, []string{client.ChallengeTypeTLSALPN01}},
		"wildcard and base":  {[]string{"*.example.test", "example.test"}, []string{client.ChallengeTypeDNS01}},
		"address over http":  {[]string{"127.0.0.1"}, []string{client.ChallengeTypeHTTP01}},
		"many names at once": {[]string{"a.example.test", "b.example.test", "c.example.test", "*.d.example.test"}, []string{client.ChallengeTypeDNS01}},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := *w.client
			c2.ChallengeSolvers = map[string]acmez.Solver{}
			for _, k := range c.kinds {
				c2.ChallengeSolvers[k] = w.client.ChallengeSolvers[k]
			}
			certs, err := c2.ObtainCertificateForSANs(t.Context(), alice, newKey(t), c.names)
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

func TestAccounts(t *testing.T) {
	w := newWorld(t, acme.Config{})
	ctx := t.Context()
	if _, err := w.client.NewAccount(ctx, client.Account{PrivateKey: newKey(t)}); kind(err) != "externalAccountRequired" {
		t.Errorf("an account without a person: %v", err)
	}
	alice := w.account(t, "alice")
	if again, err := w.client.NewAccount(ctx, client.Account{PrivateKey: alice.PrivateKey}); err != nil || again.Location != alice.Location {
		t.Errorf("the same key again: %v %v", again.Location, err)
	}
	if _, err := w.client.GetAccount(ctx, client.Account{PrivateKey: newKey(t)}); kind(err) != "accountDoesNotExist" {
		t.Errorf("an account that does not exist: %v", err)
	}
	eab := w.external(t, "alice")
	for name, change := range map[string]func(*client.EAB){
		"a wrong secret": func(e *client.EAB) { e.MACKey = base64.RawURLEncoding.EncodeToString(make([]byte, 32)) },
		"a wrong ID":     func(e *client.EAB) { e.KeyID += "x" },
	} {
		bad := eab
		change(&bad)
		a := client.Account{PrivateKey: newKey(t)}
		if err := a.SetExternalAccountBinding(ctx, w.client.Client, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.NewAccount(ctx, a); kind(err) != "unauthorized" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i, want := range []string{"", "unauthorized"} { // a key binds one account
		a := client.Account{PrivateKey: newKey(t)}
		if err := a.SetExternalAccountBinding(ctx, w.client.Client, eab); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.NewAccount(ctx, a); kind(err) != want {
			t.Errorf("binding %d: %v", i, err)
		}
	}
	// Roll over: the new key works, the old one does not.
	fresh := newKey(t)
	rolled, err := w.client.AccountKeyRollover(ctx, alice, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.GetAccount(ctx, rolled); err != nil {
		t.Errorf("after roll-over: %v", err)
	}
	if _, err := w.client.NewOrder(ctx, alice, client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: "a.test"}}}); kind(err) != "unauthorized" {
		t.Errorf("the old key after roll-over: %v", err)
	}
	bob := w.account(t, "bob")
	if _, err := w.client.AccountKeyRollover(ctx, bob, fresh); err == nil {
		t.Error("two accounts have one key")
	}
	rolled.Contact = []string{"mailto:new@example.com"}
	if a, err := w.client.UpdateAccount(ctx, rolled); err != nil || !slices.Equal(a.Contact, rolled.Contact) {
		t.Errorf("update: %v %v", a.Contact, err)
	}
	rolled.Contact = []string{"tel:+1"}
	if _, err := w.client.UpdateAccount(ctx, rolled); kind(err) != "unsupportedContact" {
		t.Errorf("a contact that is no mail: %v", err)
	}
	rolled.Contact, rolled.Status = nil, client.StatusDeactivated
	if _, err := w.client.UpdateAccount(ctx, rolled); err != nil {
		t.Error(err)
	}
	if _, err := w.client.GetAccount(ctx, rolled); kind(err) != "unauthorized" {
		t.Errorf("a deactivated account: %v", err)
	}
}

func TestASuspendedPersonsAccountStops(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	order := func() error {
		_, err := w.client.NewOrder(t.Context(), alice, client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: "a.test"}}})
		return err
	}
	if err := order(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status postern.PersonStatus
		want   string
	}{{postern.PersonSuspended, "unauthorized"}, {postern.PersonActive, ""}} {
		if err := w.db.SetPersonStatus(t.Context(), "alice", c.status); err != nil {
			t.Fatal(err)
		}
		if err := order(); kind(err) != c.want {
			t.Errorf("%s: %v", c.status, err)
		}
	}
	keys, err := w.db.ACMEExternalKeys(t.Context(), "alice")
	if err != nil || len(keys) != 1 || keys[0].Account == "" {
		t.Fatal(keys, err)
	}
	if err := w.db.DisableACMEExternalKey(t.Context(), "bob", keys[0].ID, postern.Event{Kind: postern.EventACMEAccount}); err == nil {
		t.Error("bob disables alice's key")
	}
	if err := w.db.DisableACMEExternalKey(t.Context(), "alice", keys[0].ID, postern.Event{Kind: postern.EventACMEAccount}); err != nil {
		t.Fatal(err)
	}
	if err := order(); kind(err) != "unauthorized" {
		t.Errorf("the account of a disabled key: %v", err)
	}
}

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
			{{Type: "dns", Value: "a.test"}, {Type: "dns", Value: "b.test"}, {Type: "dns", Value: "c.test"}, {Type: "dns", Value: "d.test"}},
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
		_, err := w.client.NewOrder(t.Context(), alice, client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: "a.test"}}})
		if want := map[bool]string{true: "rateLimited"}[i == 4]; kind(err) != want {
			t.Errorf("order %d: %v", i, err)
		}
	}
}

// prepare makes an order and returns it with its first challenge of a kind.
func prepare(t testing.TB, w *world, a client.Account, name, kind string) (client.Order, client.Challenge) {
	t.Helper()
	o, err := w.client.NewOrder(t.Context(), a, client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: name}}})
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

func csrFor(t testing.TB, key crypto.Signer, names ...string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAnothersOrderIsNotThere(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice, bob := w.account(t, "alice"), w.account(t, "bob")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	o, c := prepare(t, w, alice, "a.test", client.ChallengeTypeHTTP01)
	certs, err := w.client.ObtainCertificateForSANs(t.Context(), alice, newKey(t), []string{"a.test"})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"order":         second(w.client.GetOrder(t.Context(), bob, client.Order{Location: o.Location})),
		"authorization": second(w.client.GetAuthorization(t.Context(), bob, o.Authorizations[0])),
		"challenge":     second(w.client.InitiateChallenge(t.Context(), bob, c)),
		"finalize":      second(w.client.FinalizeOrder(t.Context(), bob, o, csrFor(t, newKey(t), "a.test"))),
		"certificate":   second(w.client.GetCertificateChain(t.Context(), bob, certs[0].URL)),
	} {
		if kind(err) != "malformed" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.client.RevokeCertificate(t.Context(), bob, leaf(t, certs[0].ChainPEM), bob.PrivateKey, 0); kind(err) != "unauthorized" {
		t.Errorf("revoke: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestFinalizeAsksForJustTheOrdersNames(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	o, c := prepare(t, w, alice, "a.test", client.ChallengeTypeHTTP01)
	_, body := w.post(t, alice.PrivateKey.(*ecdsa.PrivateKey), o.Finalize, alice.Location, []byte(`{"csr":""}`))
	if !strings.Contains(string(body), "orderNotReady") {
		t.Errorf("before it is proved: %s", body)
	}
	httpSolver{w.web}.Present(t.Context(), c)
	if _, err := w.client.InitiateChallenge(t.Context(), alice, c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.PollAuthorization(t.Context(), alice, client.Authorization{Location: o.Authorizations[0]}); err != nil {
		t.Fatal(err)
	}
	for name, csr := range map[string][]byte{
		"another name":      csrFor(t, newKey(t), "b.test"),
		"one name more":     csrFor(t, newKey(t), "a.test", "b.test"),
		"none":              csrFor(t, newKey(t)),
		"the account's key": csrFor(t, alice.PrivateKey.(*ecdsa.PrivateKey), "a.test"),
		"no request":        []byte("x"),
	} {
		if _, err := w.client.FinalizeOrder(t.Context(), alice, o, csr); kind(err) != "badCSR" {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.ca.fail = postern.Errorf(postern.Unavailable, "away")
	if _, err := w.client.FinalizeOrder(t.Context(), alice, o, csrFor(t, newKey(t), "a.test")); kind(err) != "serverInternal" {
		t.Errorf("while the authority is away: %v", err)
	}
	w.ca.fail = nil
	if _, err := w.client.FinalizeOrder(t.Context(), alice, o, csrFor(t, newKey(t), "a.test")); err != nil {
		t.Errorf("once it is back: %v", err)
	}
}

func TestProofsThatDoNotHold(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
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
		"nothing there":            {"a.test", client.ChallengeTypeHTTP01, "connection", nil},
		"something else there":     {"a.test", client.ChallengeTypeHTTP01, "incorrectResponse", answer(func(rw http.ResponseWriter, _ *http.Request) { rw.Write([]byte("x")) })},
		"endless":                  {"a.test", client.ChallengeTypeHTTP01, "connection", answer(func(rw http.ResponseWriter, _ *http.Request) { rw.Write(make([]byte, 1<<20)) })},
		"redirect to metadata":     {"a.test", client.ChallengeTypeHTTP01, "connection", redirect("http://169.254.169.254/x")},
		"redirect to another port": {"a.test", client.ChallengeTypeHTTP01, "connection", redirect("http://a.test:22/x")},
		"redirect to a file":       {"a.test", client.ChallengeTypeHTTP01, "connection", redirect("file:///etc/passwd")},
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
			o, ch := prepare(t, w, alice, c.host, c.kind)
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

func TestRevocation(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice, bob := w.account(t, "alice"), w.account(t, "bob")
	w.dns.Set(t, "a.test", "A 127.0.0.1")
	obtain := func(a client.Account) (*ecdsa.PrivateKey, *x509.Certificate) {
		key := newKey(t)
		certs, err := w.client.ObtainCertificateForSANs(t.Context(), a, key, []string{"a.test"})
		if err != nil {
			t.Fatal(err)
		}
		return key, leaf(t, certs[0].ChainPEM)
	}
	_, one := obtain(alice)
	if err := w.client.RevokeCertificate(t.Context(), alice, one, alice.PrivateKey, 7); kind(err) != "badRevocationReason" {
		t.Errorf("a reason that is none: %v", err)
	}
	if err := w.client.RevokeCertificate(t.Context(), alice, one, alice.PrivateKey, 1); err != nil {
		t.Error(err)
	}
	if err := w.client.RevokeCertificate(t.Context(), alice, one, alice.PrivateKey, 1); kind(err) != "alreadyRevoked" {
		t.Errorf("twice: %v", err)
	}
	key, two := obtain(alice)
	if err := w.client.RevokeCertificate(t.Context(), client.Account{}, two, newKey(t), 0); kind(err) != "unauthorized" {
		t.Errorf("by another key: %v", err)
	}
	if err := w.client.RevokeCertificate(t.Context(), client.Account{}, two, key, 0); err != nil {
		t.Errorf("by the certificate's key: %v", err)
	}
	_, three := obtain(alice)
	obtain(bob) // proves the name
	if err := w.client.RevokeCertificate(t.Context(), bob, three, bob.PrivateKey, 0); err != nil {
		t.Errorf("by an account that has proved the name: %v", err)
	}
	info, err := w.client.GetRenewalInfo(t.Context(), three)
	if err != nil || info.SuggestedWindow.End.After(time.Now()) {
		t.Errorf("renewal of a revoked certificate: %+v %v", info, err)
	}
	_, four := obtain(alice)
	if info, err = w.client.GetRenewalInfo(t.Context(), four); err != nil || info.SuggestedWindow.Start.Before(time.Now()) || info.SuggestedWindow.End.After(four.NotAfter) {
		t.Errorf("renewal: %+v %v", info, err)
	}
}

func TestOrdersAreListedPageByPage(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	want := map[string]bool{}
	for range 103 {
		o, err := w.client.NewOrder(t.Context(), alice, client.Order{Identifiers: []client.Identifier{{Type: "dns", Value: "a.test"}}})
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
