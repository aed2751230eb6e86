package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// acmeServerEnv names the store, in the process that serves ACME until it is
// killed.
const acmeServerEnv = "POSTERN_TEST_ACME"

// acmeProofs is a web server with the proofs of all clients. It can delay its answers
// until they are released.
type acmeProofs struct {
	*httptest.Server
	files   sync.Map // path to content
	delayed atomic.Pointer[chan struct{}]
	asked   chan struct{} // gets one for each request that is delayed
}

func newACMEProofs(t *testing.T) *acmeProofs {
	p := &acmeProofs{asked: make(chan struct{}, 100)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if delayed := p.delayed.Load(); delayed != nil {
			p.asked <- struct{}{}
			select {
			case <-*delayed:
			case <-r.Context().Done():
				return
			}
		}
		if text, ok := p.files.Load(r.URL.Path); ok {
			_, _ = io.WriteString(w, text.(string))
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *acmeProofs) port() string { return p.URL[strings.LastIndex(p.URL, ":")+1:] }

// lookAtProofs is the configuration to fetch the proofs.
func lookAtProofs(port string) reach.Config {
	n, _ := strconv.Atoi(port)
	return reach.Config{
		HTTPPort: n, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Timeout: time.Minute,
	}
}

// serveACMEUntilKilled is the process that is killed.
func serveACMEUntilKilled(t *testing.T, spec string) {
	where := strings.Split(spec, " ") // database, address, port of the proofs
	db := storetest.OpenConfig(t, store.Config{URL: where[0]})
	a, err := ca.Open(t.Context(), ca.Config{}, db.CA())
	if err != nil {
		t.Fatal(err)
	}
	orders, err := newACME(t.Context(), &state.State{Store: db}, a, acme.Config{Anonymous: anyone},
		lookAtProofs(where[2]), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(http.ListenAndServe(where[1], orders))
}

// acmeServer starts that process for its clients.
type acmeServer struct {
	t        *testing.T
	db, addr string
	proofs   *acmeProofs
	cmd      *exec.Cmd
}

func (s *acmeServer) start() {
	s.t.Helper()
	s.cmd = exec.Command(os.Args[0], "-test.run=^TestACMEServerKilled$")
	s.cmd.Env = append(os.Environ(), acmeServerEnv+"="+s.db+" "+s.addr+" "+s.proofs.port())
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get("http://" + s.addr + acme.Prefix + "/directory")
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Since(start) > patience {
			s.t.Fatal(err)
		}
	}
}

func (s *acmeServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// acmeOrderer is one client.
type acmeOrderer struct {
	*acmez.Client
	account acmez.Account
	proofs  *acmeProofs
}

func newACMEOrderer(t *testing.T, directory string, h *http.Client, proofs *acmeProofs) *acmeOrderer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &acmeOrderer{
		Client: &acmez.Client{Directory: directory, HTTPClient: h, PollInterval: 10 * time.Millisecond},
		proofs: proofs,
	}
	if o.account, err = o.NewAccount(t.Context(), acmez.Account{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	return o
}

// begin makes an order and puts its proof in place.
func (o *acmeOrderer) begin(ctx context.Context) (acmez.Order, acmez.Challenge, error) {
	order, err := o.NewOrder(ctx, o.account,
		acmez.Order{Identifiers: []acmez.Identifier{{Type: "ip", Value: "127.0.0.1"}}})
	if err != nil {
		return order, acmez.Challenge{}, err
	}
	authz, err := o.GetAuthorization(ctx, o.account, order.Authorizations[0])
	if err != nil {
		return order, acmez.Challenge{}, err
	}
	i := slices.IndexFunc(authz.Challenges, func(c acmez.Challenge) bool {
		return c.Type == acmez.ChallengeTypeHTTP01
	})
	c := authz.Challenges[i]
	o.proofs.files.Store(c.HTTP01ResourcePath(), c.KeyAuthorization)
	return order, c, nil
}

// finish waits for the proof and gets the certificate, whose serial number it
// returns.
func (o *acmeOrderer) finish(ctx context.Context, order acmez.Order) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	leaf, err := o.certify(ctx, order, key)
	if err != nil {
		return "", err
	}
	return ca.SerialString(leaf.SerialNumber), nil
}

// certify waits for the proof and gets a certificate for a key.
func (o *acmeOrderer) certify(ctx context.Context, order acmez.Order, key *ecdsa.PrivateKey) (*x509.Certificate,
	error,
) {
	if _, err := o.PollAuthorization(ctx, o.account,
		acmez.Authorization{Location: order.Authorizations[0]}); err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
	if err != nil {
		return nil, err
	}
	if order, err = o.FinalizeOrder(ctx, o.account, order, csr); err != nil {
		return nil, err
	}
	chain, err := o.GetCertificateChain(ctx, o.account, order.Certificate)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(chain[0].ChainPEM)
	return x509.ParseCertificate(block.Bytes)
}

func (o *acmeOrderer) obtain(ctx context.Context) (string, error) {
	order, c, err := o.begin(ctx)
	if err != nil {
		return "", err
	}
	if _, err := o.InitiateChallenge(ctx, o.account, c); err != nil {
		return "", err
	}
	return o.finish(ctx, order)
}

// TestACMEServerKilled kills servers at random moments while clients order. Each
// certificate that a client got is in the store, and the next server continues pending
// orders and validations.
func TestACMEServerKilled(t *testing.T) {
	if spec := os.Getenv(acmeServerEnv); spec != "" {
		serveACMEUntilKilled(t, spec)
	}
	s := &acmeServer{
		t: t, db: filepath.Join(t.TempDir(), "postern.db"),
		addr: fmt.Sprintf("127.0.0.1:%d", posterntest.FreePort(t)), proofs: newACMEProofs(t),
	}
	db := storetest.OpenConfig(t, store.Config{URL: s.db})
	if _, err := ca.Init(t.Context(), ca.Config{}, db.CA()); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s.start()
	defer func() { s.kill() }()
	directory := "http://" + s.addr + acme.Prefix + "/directory"
	var clients []*acmeOrderer
	for range 4 {
		clients = append(clients, newACMEOrderer(t, directory, &http.Client{Transport: &http.Transport{}}, s.proofs))
	}
	rounds := 3
	if os.Getenv("POSTERN_SOAK") == "1" {
		rounds = 60
	}
	var got sync.Map
	for range rounds {
		s.killWhile(clients, &got)
		s.checkKnown(&got)
		s.start()
	}
	s.checkGoesOn(clients[0], &got)
}

// killWhile kills the server some time after the first certificate that it issues.
func (s *acmeServer) killWhile(clients []*acmeOrderer, got *sync.Map) {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	first := sync.OnceFunc(func() {
		time.AfterFunc(time.Duration(mathrand.IntN(300_000))*time.Microsecond, func() { s.kill(); cancel() })
	})
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				if serial, err := c.obtain(ctx); err == nil {
					got.Store(serial, true)
					first()
				}
			}
		})
	}
	wg.Wait()
}

// checkKnown checks that the store has the certificates that the clients got, and that
// the timeline verifies.
func (s *acmeServer) checkKnown(got *sync.Map) {
	s.t.Helper()
	db := storetest.OpenConfig(s.t, store.Config{URL: s.db})
	defer db.Close()
	n := 0
	for serial := range got.Range {
		n++
		if _, err := db.CA().Certificate(s.t.Context(), serial.(string)); err != nil {
			s.t.Errorf("a certificate that was issued: %v", err)
		}
	}
	if n == 0 {
		s.t.Error("no certificate was issued at all")
	}
	if report, err := db.Timeline().VerifyLog(s.t.Context()); err != nil || len(report.Problems) > 0 {
		s.t.Errorf("the timeline: %v %v", report.Problems, err)
	}
}

// checkGoesOn kills the server between the steps of an order, and while it validates a
// name.
func (s *acmeServer) checkGoesOn(c *acmeOrderer, got *sync.Map) {
	s.t.Helper()
	ctx := s.t.Context()
	order, challenge, err := c.begin(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	s.kill()
	s.start()
	delayed := make(chan struct{})
	s.proofs.delayed.Store(&delayed)
	answer, err := c.InitiateChallenge(ctx, c.account, challenge)
	if err != nil || answer.Status != acmez.StatusProcessing {
		s.t.Fatalf("a challenge that takes long is %q: %v", answer.Status, err)
	}
	<-s.proofs.asked
	s.kill()
	s.proofs.delayed.Store(nil)
	close(delayed)
	s.start()
	serial, err := c.finish(ctx, order)
	if err != nil {
		s.t.Fatalf("the order does not go on: %v", err)
	}
	got.Store(serial, true)
	s.checkKnown(got)
}

// TestACMEFromTwoServers runs two servers over one PostgreSQL behind one address that
// alternates between them: every order is served by both.
func TestACMEFromTwoServers(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	location := pg.Database()
	proofs := newACMEProofs(t)
	var dbs []*store.DB
	var back []*httputil.ReverseProxy
	var served [2]atomic.Int64
	for i := range 2 {
		db := storetest.OpenConfig(t, store.Config{URL: location})
		dbs = append(dbs, db)
		a, err := ca.Init(t.Context(), ca.Config{}, db.CA())
		if i > 0 {
			a, err = ca.Open(t.Context(), ca.Config{}, db.CA())
		}
		if err != nil {
			t.Fatal(err)
		}
		orders, err := newACME(t.Context(), &state.State{Store: db}, a, acme.Config{
			Anonymous: anyone,
			Shared:    db.Shared(),
		}, lookAtProofs(proofs.port()), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { orders.Close() })
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served[i].Add(1)
			orders.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		u, err := url.Parse(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host
		}})
	}
	var turn atomic.Int64
	balancer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		back[turn.Add(1)%2].ServeHTTP(w, r)
	}))
	t.Cleanup(balancer.Close)
	c := newACMEOrderer(t, balancer.URL+acme.Prefix+"/directory", http.DefaultClient, proofs)
	for range 4 {
		if _, err := c.obtain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	finalizeTwice(t, c, dbs[0])
	if served[0].Load() < 8 || served[1].Load() < 8 {
		t.Errorf("the servers answered %d and %d requests", served[0].Load(), served[1].Load())
	}
}

// finalizeTwice repeatedly sends two requests for one order at once, one to each server:
// each order gets one certificate, and both answers have it.
func finalizeTwice(t *testing.T, c *acmeOrderer, db *store.DB) {
	t.Helper()
	ctx := t.Context()
	count := func() int {
		list, err := db.CA().Certificates(ctx, ca.Filter{Profile: ca.ProfileServer})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	const races = 10
	before := count()
	for range races {
		order, proof, err := c.begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.InitiateChallenge(ctx, c.account, proof); err != nil {
			t.Fatal(err)
		}
		var got [2]string
		var wg sync.WaitGroup
		for i := range got {
			own := order // the client reads answers into it
			own.Identifiers, own.Authorizations = slices.Clone(order.Identifiers), slices.Clone(order.Authorizations)
			wg.Go(func() {
				serial, err := c.finish(ctx, own)
				if err != nil {
					t.Error(err)
				}
				got[i] = serial
			})
		}
		wg.Wait()
		if got[0] != got[1] {
			t.Errorf("one order got the certificates %s and %s", got[0], got[1])
		}
	}
	if n := count() - before; n != races {
		t.Errorf("%d certificates were issued for %d orders", n, races)
	}
}
