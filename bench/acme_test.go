package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/acme"
	"github.com/postern-project/postern/ca"
	"github.com/postern-project/postern/reach"
	"github.com/postern-project/postern/store"
)

// ACME orders a second over HTTPS, from the new order to the certificate, each
// proved by http-01 on loopback and durable before it is answered: Postern over
// SQLite against step-ca's ACME provisioner over its default database, each in a
// process of its own, with the same client. Rounds of the two alternate.
const orderRound = 60 // orders a round, of each

// proofPortEnv is where Postern's server looks for proofs.
const proofPortEnv = "POSTERN_BENCH_PROOFS"

func BenchmarkACMEOrder(b *testing.B) {
	proofs := startProofs(b)
	step, own := startStepCA(b, "--insecure", "--acme-http-port="+proofs.port), startSigner(b, proofPortEnv+"="+proofs.port)
	theirs := newOrderer(b, step, proofs, "https://"+step.addr+"/acme/acme/directory")
	ours := newOrderer(b, own, proofs, "https://"+own.addr+acme.Prefix+"/directory")
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			theirs.reset(b)
			ours.reset(b)
			var n float64
			for b.Loop() {
				theirs.round(b, clients)
				ours.round(b, clients)
				n += orderRound
			}
			for name, o := range map[string]*orderer{"step-ca": theirs, "postern": ours} {
				b.ReportMetric(n/o.took.seconds(), name+"/s")
				b.ReportMetric(o.p99(), name+"-p99-ms")
				b.ReportMetric((o.cpu(b)-o.before)*1000/n, name+"-cpu-ms")
			}
			b.ReportMetric(theirs.took.seconds()/ours.took.seconds(), "ratio")
		})
	}
}

// newOrders is the ACME server of [TestServeSigner].
func newOrders(t *testing.T, db *store.DB, a *ca.Authority) http.Handler {
	t.Helper()
	port, _ := strconv.Atoi(os.Getenv(proofPortEnv)) // none: nothing is proved
	prober, err := reach.New(reach.Config{HTTPPort: port, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	must(t, err)
	s, err := acme.New(t.Context(), acme.Config{Anonymous: true}, db, orderIssuer{a}, prober, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// orderIssuer is the authority as the ACME server sees it.
type orderIssuer struct{ *ca.Authority }

func (i orderIssuer) Permit(names []string) error { return i.Permits(names) }

func (i orderIssuer) Issue(ctx context.Context, csr []byte, names []string, by acme.Origin) (string, error) {
	issued, err := i.SignCSR(ctx, csr, ca.SignRequest{Profile: ca.ProfileServer, Names: names, Proved: names, Origin: ca.Origin{Address: by.Address}})
	if err != nil {
		return "", err
	}
	return issued.Serial, nil
}

func (i orderIssuer) Certificate(ctx context.Context, serial string) (acme.Certificate, error) {
	c, err := i.Load(ctx, serial)
	if err != nil {
		return acme.Certificate{}, err
	}
	return acme.Certificate{Chain: c.PEM(), DER: c.DER, AuthorityKeyID: c.Leaf.AuthorityKeyId, Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter}, nil
}

func (orderIssuer) Revoke(context.Context, string, int, acme.Origin) error {
	return postern.Errorf(postern.Denied, "nothing is revoked here")
}

func (orderIssuer) ValidReason(int) bool { return false }

// proofServer answers http-01 for every order.
type proofServer struct {
	port  string
	files sync.Map // path to content
}

func startProofs(b *testing.B) *proofServer {
	b.Helper()
	p := &proofServer{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := p.files.LoadAndDelete(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(text.(string)))
	}))
	b.Cleanup(srv.Close)
	_, p.port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return p
}

// orderer orders certificates of one server.
type orderer struct {
	*peer
	proofs   *proofServer
	clients  []*acmez.Client // each with an account of its own
	accounts []acmez.Account
	csr      []byte

	mu     sync.Mutex
	took   meter
	times  []time.Duration
	before float64 // seconds of CPU
}

func newOrderer(b *testing.B, p *peer, proofs *proofServer, directory string) *orderer {
	b.Helper()
	o := &orderer{peer: p, proofs: proofs}
	// It keeps its connections, over HTTP/1.1.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: p.tls, MaxIdleConnsPerHost: 64}}
	for range 8 {
		c := &acmez.Client{Directory: directory, HTTPClient: client, PollInterval: 5 * time.Millisecond}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(b, err)
		a, err := c.NewAccount(b.Context(), acmez.Account{PrivateKey: key, TermsOfServiceAgreed: true})
		must(b, err)
		o.clients, o.accounts = append(o.clients, c), append(o.accounts, a)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b, err)
	o.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
	must(b, err)
	return o
}

func (o *orderer) reset(b *testing.B) { o.took, o.times, o.before = 0, nil, o.cpu(b) }

// p99 returns what 99 of 100 orders took at most, in milliseconds.
func (o *orderer) p99() float64 {
	slices.Sort(o.times)
	return float64(o.times[len(o.times)*99/100].Microseconds()) / 1000
}

func (o *orderer) round(b *testing.B, clients int) {
	b.Helper()
	o.took.measure(func() {
		var next atomic.Int64
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for next.Add(1) <= orderRound {
					start := time.Now()
					if err := o.order(b.Context(), o.clients[i], o.accounts[i]); err != nil {
						b.Error(err)
						return
					}
					o.mu.Lock()
					o.times = append(o.times, time.Since(start))
					o.mu.Unlock()
				}
			})
		}
		wg.Wait()
	})
}

// order gets one certificate.
func (o *orderer) order(ctx context.Context, c *acmez.Client, a acmez.Account) error {
	order, err := c.NewOrder(ctx, a, acmez.Order{Identifiers: []acmez.Identifier{{Type: "ip", Value: "127.0.0.1"}}})
	if err != nil {
		return fmt.Errorf("new order: %w", err)
	}
	authz, err := c.GetAuthorization(ctx, a, order.Authorizations[0])
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	i := slices.IndexFunc(authz.Challenges, func(c acmez.Challenge) bool { return c.Type == acmez.ChallengeTypeHTTP01 })
	o.proofs.files.Store(authz.Challenges[i].HTTP01ResourcePath(), authz.Challenges[i].KeyAuthorization)
	done, err := c.InitiateChallenge(ctx, a, authz.Challenges[i])
	if err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	if done.Status != acmez.StatusValid {
		if _, err := c.PollAuthorization(ctx, a, authz); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
	}
	order, err = c.FinalizeOrder(ctx, a, order, o.csr)
	if err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	chain, err := c.GetCertificateChain(ctx, a, order.Certificate)
	if err == nil && len(chain) == 0 {
		err = fmt.Errorf("no certificate")
	}
	return err
}
