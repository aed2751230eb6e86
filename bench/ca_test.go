package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// Server certificates issued a second over HTTPS, each durable before it is
// answered: Postern's signing call over SQLite against step-ca's sign API over
// its default database, each in a process of its own, from the same client and
// the same requests, written beforehand. Rounds of the two alternate. The third pair sends a list of
// requests in each of Postern's calls, which step-ca has nothing like.
const (
	signRound = 200 // certificates a round, of each
	signKeys  = 32  // different requests
)

func BenchmarkCASign(b *testing.B) {
	defer runtime.KeepAlive(heapFloor()) // the client shares the processors
	csrs := requests(b)
	step, own := startStepCA(b), startSigner(b)
	for _, c := range []struct{ clients, list int }{{1, 1}, {8, 1}, {8, 20}} {
		clients := c.clients
		b.Run(fmt.Sprintf("clients=%d/list=%d", clients, c.list), func(b *testing.B) {
			var theirs, ours meter
			cpu := [2]float64{step.cpu(b), own.cpu(b)}
			var n float64
			for b.Loop() {
				calls := step.requests("", step.bodies(b, csrs, signRound))
				theirs.measure(func() { step.sign(b, clients, calls) })
				if c.list == 1 {
					calls = own.requests("", own.bodies(b, csrs, signRound))
				} else {
					calls = own.requests("-many", lists(own.bodies(b, csrs, signRound), c.list))
				}
				ours.measure(func() { own.sign(b, clients, calls) })
				n += signRound
			}
			b.ReportMetric(n/theirs.seconds(), "step-ca/s")
			b.ReportMetric(n/ours.seconds(), "postern/s")
			b.ReportMetric((step.cpu(b)-cpu[0])*1000/n, "step-ca-cpu-ms")
			b.ReportMetric((own.cpu(b)-cpu[1])*1000/n, "postern-cpu-ms")
			b.ReportMetric(theirs.seconds()/ours.seconds(), "ratio")
		})
	}
}

// requests returns certificate requests in PEM.
func requests(b *testing.B) []string {
	b.Helper()
	var list []string
	for range signKeys {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(b, err)
		der, err := x509.CreateCertificateRequest(rand.Reader,
			&x509.CertificateRequest{
				Subject:  pkix.Name{CommonName: "www.example.com"},
				DNSNames: []string{"www.example.com"},
			}, key)
		must(b, err)
		list = append(list, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
	}
	return list
}

// peer is a server that signs.
type peer struct {
	addr, path string
	token      string // sent as bearer, if set
	body       func(csr string) any
	tls        *tls.Config
	pid        int
	idle       chan *link
}

// link is one client's connection, which it keeps.
type link struct {
	*tls.Conn
	in   *bufio.Reader
	text bytes.Buffer // the last answer
	used time.Time
}

// bodies makes the bodies of n calls.
func (p *peer) bodies(b *testing.B, csrs []string, n int) [][]byte {
	b.Helper()
	list := make([][]byte, n)
	for i := range list {
		data, err := json.Marshal(p.body(csrs[i%len(csrs)]))
		must(b, err)
		list[i] = data
	}
	return list
}

// lists joins bodies to lists of n.
func lists(bodies [][]byte, n int) [][]byte {
	var lists [][]byte
	for part := range slices.Chunk(bodies, n) {
		lists = append(lists, slices.Concat([]byte("["), bytes.Join(part, []byte(",")), []byte("]")))
	}
	return lists
}

// call is a request as it goes over the connection, and how many certificates it
// asks for.
type call struct {
	wire  []byte
	asked int
}

// requests makes calls of bodies, outside of what is measured.
func (p *peer) requests(suffix string, bodies [][]byte) []call {
	var list []call
	for _, body := range bodies {
		var w bytes.Buffer
		fmt.Fprintf(&w,
			"POST %s%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n",
			p.path, suffix, len(body))
		if p.token != "" {
			fmt.Fprintf(&w, "Authorization: Bearer %s\r\n", p.token)
		}
		w.WriteString("\r\n")
		w.Write(body)
		list = append(list, call{w.Bytes(), bytes.Count(body, []byte(`"csr"`))})
	}
	return list
}

// sign makes the calls from so many clients at once.
func (p *peer) sign(b *testing.B, clients int, calls []call) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			l, err := p.connect()
			for err == nil {
				i := int(next.Add(1)) - 1
				if i >= len(calls) {
					p.idle <- l
					return
				}
				err = l.call(calls[i])
			}
			b.Error(err)
		})
	}
	wg.Wait()
}

// connect returns a connection that has not been idle for long.
func (p *peer) connect() (*link, error) {
	for {
		select {
		case l := <-p.idle:
			if time.Since(l.used) < 5*time.Second {
				return l, nil
			}
			l.Close()
			continue
		default:
		}
		conn, err := tls.Dial("tcp", p.addr, p.tls)
		if err != nil {
			return nil, err
		}
		return &link{Conn: conn, in: bufio.NewReader(conn)}, nil
	}
}

// call sends a request and reads the answer.
func (l *link) call(c call) error {
	if _, err := l.Write(c.wire); err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	l.text.Reset()
	_, err = l.text.ReadFrom(resp.Body)
	l.used = time.Now()
	// Each certificate comes with its issuer's.
	if err == nil && (resp.StatusCode != http.StatusCreated ||
		bytes.Count(l.text.Bytes(), []byte("BEGIN CERTIFICATE")) < 2*c.asked) {
		err = fmt.Errorf("%s: %s", resp.Status, l.text.Bytes())
	}
	return err
}

// cpu returns the seconds of CPU that the server has used.
func (p *peer) cpu(b *testing.B) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	must(b, err)
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	must(b, err)
	system, err := strconv.Atoi(fields[12])
	must(b, err)
	return float64(user+system) / 100 // USER_HZ
}

func trust(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// start runs a server until the benchmark ends, and waits for its port.
func start(b *testing.B, cmd *exec.Cmd, port int) int {
	b.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(b, cmd.Start())
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-gone
		}
	})
	for {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
			return cmd.Process.Pid
		}
		select {
		case <-gone:
			b.Fatalf("%s ended: %s", cmd.Path, out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// heapFloor returns what postern run holds against collecting a small heap all
// the time.
func heapFloor() []byte { return make([]byte, 32<<20) }

// signerEnv names the state of a signing server, in the process that is one.
const signerEnv = "POSTERN_BENCH_SIGNER"

// serveSigner is the server of [BenchmarkCASign] and [BenchmarkACMEOrder], in a
// process of its own, until SIGTERM. dir holds its database.
func serveSigner(dir, addr string) error {
	defer runtime.KeepAlive(heapFloor())
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // as postern run does
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	db, err := store.Open(ctx, store.Config{URL: filepath.Join(dir, "postern.db"), Key: storetest.Key})
	if err != nil {
		return err
	}
	defer db.Close()
	a, err := ca.Open(ctx, ca.Config{}, db.CA())
	if err != nil {
		return err
	}
	out, err := a.IssueServer(ctx, ca.ServerRequest{Names: []string{"localhost"}})
	if err != nil {
		return err
	}
	orders, err := newOrders(ctx, db, a)
	if err != nil {
		return err
	}
	defer orders.Close()
	mux := http.NewServeMux()
	mux.Handle("/", ca.NewAPI(ca.APIConfig{}, a, nil))
	mux.Handle(acme.Prefix+"/", orders)
	srv := &http.Server{
		Addr:    addr,
		Handler: mux,
		TLSConfig: &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{
			{Certificate: [][]byte{out.Leaf.Raw, out.Chain[0].Raw}, PrivateKey: out.Key},
		}},
	}
	go func() {
		<-ctx.Done()
		srv.Close()
	}()
	return srv.ListenAndServeTLS("", "")
}

func startSigner(b *testing.B, env ...string) *peer {
	b.Helper()
	dir, port := b.TempDir(), posterntest.FreePort(b)
	db, err := store.Open(context.Background(), store.Config{
		URL: filepath.Join(dir, "postern.db"),
		Key: storetest.Key,
	})
	must(b, err)
	a, err := ca.Init(context.Background(), ca.Config{URL: "http://pki.example.com"}, db.CA())
	must(b, err)
	token, err := a.AddToken(context.Background(), "bench", []string{"example.com"}, 0)
	must(b, err)
	must(b, db.Close())
	roots := x509.NewCertPool()
	roots.AddCert(a.Root())
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), env...), signerEnv+"="+dir,
		fmt.Sprintf("%s_ADDR=127.0.0.1:%d", signerEnv, port))
	return &peer{
		addr: fmt.Sprintf("127.0.0.1:%d", port), path: "/sign", token: token, tls: trust(roots),
		pid: start(b, cmd, port), idle: make(chan *link, 64),
		body: func(csr string) any { return ca.SignCall{CSR: csr} },
	}
}

// startStepCA builds step-ca from the module beside this file and runs it with
// an intermediate of its own, a JWK and an ACME provisioner and its default
// database.
func startStepCA(b *testing.B, flags ...string) *peer {
	b.Helper()
	dir, port := b.TempDir(), posterntest.FreePort(b)
	program := filepath.Join(dir, "step-ca")
	build := exec.Command("go", "build", "-o", program, "github.com/smallstep/certificates/cmd/step-ca")
	build.Dir = "stepca"
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // no smart cards
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build step-ca: %v\n%s", err, out)
	}
	roots := stepHierarchy(b, dir)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b, err)
	config, err := json.Marshal(map[string]any{
		"root": filepath.Join(dir, "root.pem"), "crt": filepath.Join(dir, "int.pem"),
		"key":     filepath.Join(dir, "int.key"),
		"address": fmt.Sprintf("127.0.0.1:%d", port), "dnsNames": []string{"localhost"},
		"db": map[string]any{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{
			map[string]any{"type": "JWK", "name": "bench", "key": publicJWK(b, key)},
			map[string]any{"type": "ACME", "name": "acme"},
		}},
	})
	must(b, err)
	must(b, os.WriteFile(filepath.Join(dir, "ca.json"), config, 0o600))
	cmd := exec.Command(program, append(flags, filepath.Join(dir, "ca.json"))...)
	cmd.Env = append(os.Environ(), "STEPPATH="+dir)
	return &peer{
		addr: fmt.Sprintf("127.0.0.1:%d", port), path: "/1.0/sign", tls: trust(roots), pid: start(b, cmd, port),
		idle: make(chan *link, 64),
		body: func(csr string) any { return map[string]any{"csr": csr, "ott": oneTimeToken(b, key)} },
	}
}

// stepHierarchy writes a root and an intermediate as step-ca wants them.
func stepHierarchy(b *testing.B, dir string) *x509.CertPool {
	b.Helper()
	sign := func(name string, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(b, err)
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if parent == nil {
			parent, signer = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
		must(b, err)
		cert, err := x509.ParseCertificate(der)
		must(b, err)
		return cert, key
	}
	root, rootKey := sign("step root", nil, nil)
	inter, interKey := sign("step intermediate", root, rootKey)
	der, err := x509.MarshalECPrivateKey(interKey)
	must(b, err)
	for name, block := range map[string]*pem.Block{
		"root.pem": {Type: "CERTIFICATE", Bytes: root.Raw}, "int.pem": {Type: "CERTIFICATE", Bytes: inter.Raw},
		"int.key": {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		must(b, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return roots
}

var base64url = base64.RawURLEncoding

// publicJWK returns a P-256 key as JWK (RFC 7518 section 6.2).
func publicJWK(b *testing.B, key *ecdsa.PrivateKey) map[string]any {
	b.Helper()
	point, err := key.PublicKey.Bytes()
	must(b, err)
	return map[string]any{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "bench",
		"x": base64url.EncodeToString(point[1:33]), "y": base64url.EncodeToString(point[33:]),
	}
}

// oneTimeToken returns what step-ca's JWK provisioner accepts once.
func oneTimeToken(b *testing.B, key *ecdsa.PrivateKey) string {
	b.Helper()
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "bench", "aud": "https://localhost/1.0/sign", "sub": "www.example.com",
		"sans": []string{"www.example.com"},
		"iat":  now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(4 * time.Minute).Unix(),
		"jti": rand.Text(),
	})
	must(b, err)
	signed := base64url.EncodeToString([]byte(`{"alg":"ES256","kid":"bench","typ":"JWT"}`)) + "." +
		base64url.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	must(b, err)
	return signed + "." + base64url.EncodeToString(append(r.FillBytes(make([]byte, 32)),
		s.FillBytes(make([]byte, 32))...))
}
