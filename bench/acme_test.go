package bench

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/store"
)

// ACME orders a second over HTTPS, from the new order to the certificate, each
// proved by http-01 on loopback and durable before it is answered: Postern over
// SQLite against step-ca's ACME provisioner over its default database, each in a
// process of its own, with the same client, which makes only the requests that an
// order needs. Rounds of the two alternate.
const orderRound = 60 // orders a round, of each

// proofPortEnv is where Postern's server looks for proofs.
const proofPortEnv = "POSTERN_BENCH_PROOFS"

func BenchmarkACMEOrder(b *testing.B) {
	defer runtime.KeepAlive(heapFloor()) // the client shares the processors
	proofs := startProofs(b)
	step, own := startStepCA(b, "--insecure", "--acme-http-port="+proofs.port),
		startSigner(b, proofPortEnv+"="+proofs.port)
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
				b.ReportMetric(o.spent*1000/n, name+"-client-cpu-ms")
				b.ReportMetric(float64(o.polls)/n, name+"-polls")
				b.ReportMetric(n/o.took.seconds(), name+"/s")
				b.ReportMetric(o.p99(), name+"-p99-ms")
				b.ReportMetric((o.cpu(b)-o.before)*1000/n, name+"-cpu-ms")
			}
			b.ReportMetric(theirs.took.seconds()/ours.took.seconds(), "ratio")
		})
	}
}

// newOrders is the ACME server of [serveSigner].
func newOrders(ctx context.Context, db *store.DB, a *ca.Authority) (*acme.Server, error) {
	port, _ := strconv.Atoi(os.Getenv(proofPortEnv)) // none: nothing is proved
	prober, err := reach.New(reach.Config{
		HTTPPort: port,
		Private:  []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	if err != nil {
		return nil, err
	}
	return acme.New(ctx, acme.Config{Anonymous: func(netip.Addr, []string) bool {
		return true
	}}, db.ACME(), orderIssuer{a, db}, prober, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// orderIssuer is the authority as the ACME server sees it.
type orderIssuer struct {
	*ca.Authority
	db *store.DB
}

func (i orderIssuer) Permit(names []string) error { return i.Permits(names) }

func (i orderIssuer) Issue(ctx context.Context, by postern.Actor, csr []byte, names []string, _ acme.Terms,
	f acme.Finish,
) (acme.Order, error) {
	c, err := i.PrepareCSR(ctx, csr, ca.SignRequest{Profile: ca.ProfileServer, Names: names, Proved: names, By: by})
	if err != nil {
		return acme.Order{}, err
	}
	return i.db.ACME().FinishOrder(ctx, by, c.Certificate, c.Event, f)
}

func (orderIssuer) Profiles() map[string]string { return nil }

func (orderIssuer) Accept(t acme.Terms) (acme.Terms, error) { return t, nil }

func (i orderIssuer) Certificate(ctx context.Context, serial string) (acme.Certificate, error) {
	c, err := i.Load(ctx, serial)
	if err != nil {
		return acme.Certificate{}, err
	}
	return acme.Certificate{
		Chain: c.PEM(), DER: c.DER, AuthorityKeyID: c.Leaf.AuthorityKeyId, Names: c.Names,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}, nil
}

func (orderIssuer) Revoke(context.Context, postern.Actor, string, postern.RevocationReason) error {
	return postern.Errorf(postern.Denied, "nothing is revoked here")
}

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
	proofs  *proofServer
	newest  string        // address for new orders
	clients []*acmeClient // each with an account of its own
	csr     string        // as base64url

	took   meter
	times  []time.Duration
	polls  int     // answers that were not yet final
	before float64 // seconds of the server's CPU
	spent  float64 // seconds of this process's CPU, the proofs included
}

// acmeClient makes the requests that RFC 8555 needs for an order and no others,
// over one connection that it keeps.
type acmeClient struct {
	*orderer
	link  *link
	key   *ecdsa.PrivateKey
	kid   string
	print string // the key's thumbprint
	nonce string // of the last answer
	polls int
	times []time.Duration
}

func newOrderer(b *testing.B, p *peer, proofs *proofServer, directory string) *orderer {
	b.Helper()
	o := &orderer{peer: p, proofs: proofs}
	for range 8 {
		z := &acmez.Client{
			Directory:  directory,
			HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: p.tls}},
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(b, err)
		a, err := z.NewAccount(b.Context(), acmez.Account{PrivateKey: key, TermsOfServiceAgreed: true})
		must(b, err)
		d, err := z.GetDirectory(b.Context())
		must(b, err)
		o.newest = d.NewOrder
		c := &acmeClient{orderer: o, key: key, kid: a.Location}
		jwk := publicJWK(b, key)
		// RFC 7638
		sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, jwk["x"], jwk["y"]))
		c.print = base64url.EncodeToString(sum[:])
		c.link, err = p.connect()
		must(b, err)
		_, err = c.send("HEAD", d.NewNonce, nil)
		must(b, err)
		o.clients = append(o.clients, c)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
	must(b, err)
	o.csr = base64url.EncodeToString(csr)
	return o
}

func (o *orderer) reset(b *testing.B) {
	o.took, o.times, o.polls, o.before, o.spent = 0, nil, 0, o.cpu(b), 0
}

// p99 returns what 99 of 100 orders took at most, in milliseconds.
func (o *orderer) p99() float64 {
	slices.Sort(o.times)
	return float64(o.times[len(o.times)*99/100].Microseconds()) / 1000
}

func (o *orderer) round(b *testing.B, clients int) {
	b.Helper()
	for _, c := range o.clients[:clients] {
		must(b, c.reconnect())
	}
	spent := ownCPU(b)
	o.took.measure(func() {
		var next atomic.Int64
		var wg sync.WaitGroup
		for _, c := range o.clients[:clients] {
			wg.Go(func() {
				for next.Add(1) <= orderRound {
					start := time.Now()
					if err := c.order(); err != nil {
						b.Error(err)
						return
					}
					c.times = append(c.times, time.Since(start))
				}
			})
		}
		wg.Wait()
	})
	o.spent += ownCPU(b) - spent
	for _, c := range o.clients[:clients] {
		o.times, o.polls = append(o.times, c.times...), o.polls+c.polls
		c.times, c.polls = nil, 0
	}
}

// ownCPU returns the seconds of CPU that this process has used.
func ownCPU(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// reconnect makes sure that the server has not closed the connection meanwhile.
func (c *acmeClient) reconnect() (err error) {
	c.idle <- c.link
	c.link, err = c.connect()
	return err
}

// order gets one certificate.
func (c *acmeClient) order() error {
	var order struct {
		Status, Finalize, Certificate string
		Authorizations                []string
	}
	var authz struct {
		Status     string
		Challenges []struct{ Type, URL, Token, Status string }
	}
	head, err := c.post(c.newest, `{"identifiers":[{"type":"ip","value":"127.0.0.1"}]}`, &order)
	if err != nil {
		return fmt.Errorf("new order: %w", err)
	}
	url := head.Get("Location")
	if _, err := c.post(order.Authorizations[0], "", &authz); err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	for _, proof := range authz.Challenges {
		if proof.Type != "http-01" {
			continue
		}
		c.proofs.files.Store("/.well-known/acme-challenge/"+proof.Token, proof.Token+"."+c.print)
		if _, err := c.post(proof.URL, "{}", &proof); err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		authz.Status = proof.Status
	}
	for ; authz.Status == "pending" || authz.Status == "processing"; c.polls++ {
		if _, err := c.post(order.Authorizations[0], "", &authz); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
	}
	if _, err := c.post(order.Finalize, `{"csr":"`+c.csr+`"}`, &order); err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	for ; order.Status == "processing"; c.polls++ {
		if _, err := c.post(url, "", &order); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
	}
	if _, err := c.post(order.Certificate, "", nil); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	// It comes with its issuer's.
	if bytes.Count(c.link.text.Bytes(), []byte("BEGIN CERTIFICATE")) < 2 {
		return fmt.Errorf("no certificate: %s", c.link.text.Bytes())
	}
	return nil
}

// post sends a signed request (RFC 8555 section 6.2; an empty payload only asks)
// and reads the answer.
func (c *acmeClient) post(url, payload string, answer any) (http.Header, error) {
	head := fmt.Appendf(nil, `{"alg":"ES256","kid":%q,"nonce":%q,"url":%q}`, c.kid, c.nonce, url)
	signed := base64url.EncodeToString(head) + "." + base64url.EncodeToString([]byte(payload))
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		return nil, err
	}
	protected, payload, _ := strings.Cut(signed, ".")
	signature := base64url.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	header, err := c.send("POST", url, fmt.Appendf(nil, `{"protected":"%s","payload":"%s","signature":"%s"}`,
		protected, payload, signature))
	if err == nil && answer != nil {
		err = json.Unmarshal(c.link.text.Bytes(), answer)
	}
	return header, err
}

// send makes a request and keeps the nonce of the answer, whose body is then in
// the link's text.
func (c *acmeClient) send(method, url string, body []byte) (http.Header, error) {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	wire := fmt.Appendf(nil,
		"%s /%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/jose+json\r\nContent-Length: %d\r\n\r\n%s", method,
		path, host, len(body), body)
	if _, err := c.link.Write(wire); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.link.in, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	c.link.text.Reset()
	_, err = c.link.text.ReadFrom(resp.Body)
	c.link.used, c.nonce = time.Now(), resp.Header.Get("Replay-Nonce")
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", resp.Status, c.link.text.Bytes())
	}
	return resp.Header, err
}
