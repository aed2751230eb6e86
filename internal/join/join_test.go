package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// installation is a server that hosts join.
type installation struct {
	db   *store.DB
	ca   *ca.Authority
	url  string
	lose atomic.Bool // answer a request to join, and lose the answer
}

func install(t *testing.T) *installation {
	t.Helper()
	i := &installation{db: storetest.Open(t)}
	var err error
	if i.ca, err = ca.Init(t.Context(), ca.Config{Name: "Test"}, i.db.CA()); err != nil {
		t.Fatal(err)
	}
	api := host.NewHandler(host.Config{
		Authority: server.HostAuthority{CA: i.ca, Hosts: i.db.Hosts(), Limit: new(host.Limit)},
		Identify:  i.identify,
		Address:   func(*http.Request) string { return "127.0.0.1" },
		Log:       slog.New(slog.DiscardHandler),
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == host.JoinPath && i.lose.Load() {
			api.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		api.ServeHTTP(w, r)
	}))
	issued, err := i.ca.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{
		Certificate: [][]byte{issued.Leaf.Raw, issued.Chain[0].Raw}, PrivateKey: issued.Key,
	}}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	i.url = s.URL
	return i
}

func (i *installation) identify(r *http.Request) (host.Shown, error) {
	if len(r.TLS.PeerCertificates) == 0 {
		return host.Shown{}, postern.Errorf(postern.Denied, "no certificate")
	}
	leaf, issuer := r.TLS.PeerCertificates[0], i.ca.Chain(ca.Client)[0]
	if err := leaf.CheckSignatureFrom(issuer); err != nil {
		return host.Shown{}, postern.Errorf(postern.Denied, "%w", err)
	}
	serial := ca.SerialString(leaf.SerialNumber)
	h, err := i.db.Hosts().HostByCertificate(r.Context(), serial, issuer.Raw)
	return host.Shown{Host: h, Serial: serial}, err
}

// invite returns a token for a host.
func (i *installation) invite(t *testing.T, again bool, names ...string) string {
	t.Helper()
	list, err := host.Invite(t.Context(), i.db.Hosts(), postern.Actor{},
		[]postern.Host{{Name: names[0], Names: names[1:]}},
		host.InviteOptions{Root: i.ca.Root(), Again: again})
	if err != nil {
		t.Fatal(err)
	}
	return list[0].Text()
}

func (i *installation) setStatus(t *testing.T, name string, s postern.HostStatus) {
	t.Helper()
	if _, err := i.db.Hosts().SetHostStatus(t.Context(), postern.Actor{}, name, s, postern.Event{}); err != nil {
		t.Fatal(err)
	}
}

// files are the files below a host's /etc that joining may touch, by name.
func files(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"etc/ssh", "etc/postern"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // it is not there
			}
			all[strings.TrimPrefix(path, root)] = posterntest.Read(t, path)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func wantSame(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	if maps.Equal(before, after) {
		return
	}
	for name := range after {
		if before[name] != after[name] {
			t.Errorf("%s: %s is %q, not %q", what, name, after[name], before[name])
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%s: %s is gone", what, name)
		}
	}
}

func wantCode(t *testing.T, what string, err error, want postern.Code) {
	t.Helper()
	if err == nil || postern.CodeOf(err) != want {
		t.Errorf("%s: %v, not %s", what, err, want)
	}
}

// paperHost is a host of files alone, whose sshd takes everything.
func paperHost(t testing.TB, config string) Host {
	t.Helper()
	root := posterntest.SSHDFiles(t, map[string]string{
		"etc/ssh/sshd_config": config, "etc/ssh/ssh_known_hosts": "git.example.com ssh-ed25519 AAAA\n",
	})
	key, _ := posterntest.NewSSHKey(t, root, "etc/ssh/ssh_host_ed25519_key")
	pub := filepath.Join(root, "etc/ssh/ssh_host_ed25519_key.pub")
	if err := os.WriteFile(pub, ssh.MarshalAuthorizedKey(key.PublicKey()), 0o644); err != nil {
		t.Fatal(err)
	}
	fine := func(context.Context) error { return nil }
	return Host{
		Root: root, Version: "1",
		SSHD: setup.Applier{Root: root, Dir: t.TempDir(), Check: fine, Test: fine, Reload: fine},
	}
}

const includesDropIns = "Include /etc/ssh/sshd_config.d/*.conf\n"

// TestJoinedSSHD joins a host in namespaces of its own, with a real sshd, and logs in.
func TestJoinedSSHD(t *testing.T) {
	ns := posterntest.StartHost(t, posterntest.HostConfig{
		Config:   includesDropIns + "HostKey @DIR@/host\nUsePAM no\nPasswordAuthentication no\n",
		Accounts: []posterntest.Account{{Name: "alice"}},
	})
	i := install(t)
	sshd := func(args ...string) func(context.Context) error {
		return func(context.Context) error { return ns.Command(args[0], args[1:]...).Run() }
	}
	test := sshd("/usr/sbin/sshd", "-t", "-f", "/etc/ssh/sshd_config")
	h := Host{Root: ns.Inside("/"), Version: "1", SSHD: setup.Applier{
		Root: ns.Inside("/"), Dir: t.TempDir(), Check: test, Test: test, Reload: sshd("kill", "-HUP", "1"),
	}}
	before := files(t, ns.Inside("/"))
	o := Options{Server: i.url, Token: i.invite(t, false, "hv1", "127.0.0.1")}
	if r, err := h.Join(t.Context(), o); err != nil || r.Applied || len(r.Files) == 0 {
		t.Fatalf("a dry run: %+v, %v", r, err)
	}
	wantSame(t, "a dry run", before, files(t, ns.Inside("/")))
	o.Apply = true
	if r, err := h.Join(t.Context(), o); err != nil || !r.Applied || r.Host != "hv1" {
		t.Fatalf("%+v, %v", r, err)
	}

	if err := i.db.People().AddPerson(t.Context(), postern.Person{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	signed, err := i.ca.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "alice", Key: ns.Key.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(signed.Cert, ns.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(ns.Dir, "home/alice/.ssh/authorized_keys")); err != nil {
		t.Fatal(err)
	}
	// login logs in with the certificate, to a host that shows one for its address.
	login := func() error {
		known, err := knownhosts.New(ns.Inside(knownHosts))
		if err != nil {
			return err
		}
		conn, err := ns.Dial("tcp", ns.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		c, chans, reqs, err := ssh.NewClientConn(conn, ns.Addr(), &ssh.ClientConfig{
			User: "alice", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: known,
			HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
		})
		if err != nil {
			return err
		}
		return ssh.NewClient(c, chans, reqs).Close()
	}
	eventually(t, "a login with certificates of both", func() bool { return login() == nil })

	if err := i.ca.RevokeSSH(t.Context(), signed.Serial, postern.Actor{}); err != nil {
		t.Fatal(err)
	}
	changed, err := h.Refresh(t.Context(), []string{"the disk is full"})
	if err != nil || len(changed) != 1 || changed[0] != setup.KRLFile {
		t.Fatalf("after a revocation %q changed, %v", changed, err)
	}
	if err := login(); err == nil {
		t.Error("a revoked certificate logs in")
	}
	if changed, err := h.Refresh(t.Context(), nil); err != nil || len(changed) > 0 {
		t.Errorf("without news %q changed, %v", changed, err)
	}
	if _, err := h.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "after leaving", before, files(t, ns.Inside("/")))
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestWhatTheServerGaveEndsWithIt has a host leave, and join another installation or the same
// one again: the timeline that its agent remembers, its rescue codes and what was reported of
// its audit are the installation's.
func TestWhatTheServerGaveEndsWithIt(t *testing.T) {
	i, other := install(t), install(t)
	join := func(to *installation) func(Host) error {
		return func(h Host) error {
			o := Options{Server: to.url, Token: to.invite(t, to == i, "hv1"), Apply: true}
			_, err := h.Join(t.Context(), o)
			return err
		}
	}
	const spool = "0000000000000000001.jsonl"
	all := []string{spool, "audit.last", "checkpoint", "rescue.json"}
	for what, c := range map[string]struct {
		do   func(Host) error
		want []string
	}{
		"left":                       {func(h Host) error { _, err := h.Leave(t.Context()); return err }, all[:1]},
		"joined another":             {join(other), all[:1]},
		"joined the same once again": {join(i), all},
	} {
		h := paperHost(t, includesDropIns)
		must(t, join(i)(h))
		must(t, os.MkdirAll(h.path(agentDir), 0o700))
		for _, name := range all {
			must(t, os.WriteFile(filepath.Join(h.path(agentDir), name), nil, 0o600))
		}
		must(t, c.do(h))
		var left []string
		entries, err := os.ReadDir(h.path(agentDir))
		must(t, err)
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if !slices.Equal(left, c.want) {
			t.Errorf("%s: there are %q, not %q", what, left, c.want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestHostWithoutSSHD joins a host that runs libvirt alone.
func TestHostWithoutSSHD(t *testing.T) {
	i := install(t)
	h := Host{Root: t.TempDir(), SSHD: setup.Applier{Dir: t.TempDir()}}
	must(t, os.MkdirAll(h.path("/run/libvirt"), 0o755))
	must(t, os.WriteFile(h.path("/run/libvirt/libvirt-sock"), nil, 0o600))
	_, err := h.Join(t.Context(), Options{Server: i.url, Token: i.invite(t, false, "hv1"), Apply: true})
	must(t, err)
	changed, err := h.Refresh(t.Context(), nil)
	must(t, err)
	said, err := i.db.Hosts().Host(t.Context(), "hv1")
	must(t, err)
	if len(changed) > 0 || len(said.Serves) != 1 || said.Serves[0] != "libvirt" {
		t.Errorf("%q changed, the server knows %+v", changed, said)
	}
	_, err = h.Leave(t.Context())
	must(t, err)
	if left := files(t, h.Root); len(left) > 0 {
		t.Errorf("left is %v", left)
	}
}

// TestKilledWhileJoining ends calls that join, renew and leave before each change that they
// make, and runs them again.
func TestKilledWhileJoining(t *testing.T) {
	i := install(t)
	for n := 0; ; n++ {
		h := paperHost(t, "Port 22\n") // one that includes no drop-ins
		before := files(t, h.Root)
		o := Options{Server: i.url, Token: i.invite(t, n > 0, "hv1"), Apply: true}
		came := killed(h, n, func(h Host) { _, _ = h.Join(t.Context(), o) })
		if _, err := h.Join(t.Context(), o); err != nil {
			t.Fatalf("step %d: joining again: %v", n, err)
		}
		certificate := h.path("/etc/ssh/ssh_host_ed25519_key-cert.pub")
		must(t, os.Remove(certificate)) // so that there is something to renew
		killed(h, n, func(h Host) { _, _ = h.Refresh(t.Context(), nil) })
		if _, err := h.Refresh(t.Context(), nil); err != nil || posterntest.Read(t, certificate) == "" {
			t.Errorf("step %d: %v", n, err)
		}
		gone := killed(h, n, func(h Host) { _, _ = h.Leave(t.Context()) })
		if _, err := h.Leave(t.Context()); err != nil && postern.CodeOf(err) != postern.NotFound {
			t.Fatalf("step %d: leaving again: %v", n, err)
		}
		wantSame(t, "left", before, files(t, h.Root))
		if !came && !gone {
			break
		}
		if n > 30 {
			t.Fatal("no end")
		}
	}
}

// killed runs do until its step number n, and reports whether it came so far.
func killed(h Host, n int, do func(Host)) bool {
	return posterntest.Killed(n, func(step func()) {
		h.step = step
		do(h)
	})
}

// TestAPublicCertificateIsNotEnough has an attacker with a certificate that the host trusts
// for the server's name stand in front of the server: what it changes, or answers itself,
// is refused, and the token is not sent.
func TestAPublicCertificateIsNotEnough(t *testing.T) {
	i := install(t)
	server, err := url.Parse(i.url)
	must(t, err)
	var change func(answer []byte) []byte
	var request func(body []byte) []byte
	forward := httputil.NewSingleHostReverseProxy(server)
	forward.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // an attacker
	}
	forward.ModifyResponse = func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		if r.Request.URL.Path == host.JoinPath {
			body = change(body)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header.Del("Content-Length")
		return err
	}
	token := i.invite(t, false, "hv1")
	attacker := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || strings.Contains(string(body)+r.Header.Get(host.SignatureHeader), token[4:20]) {
			t.Errorf("the token is sent: %v", err)
		}
		if r.URL.Path == host.JoinPath {
			body = request(body)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		forward.ServeHTTP(w, r)
	}))
	attacker.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	attacker.StartTLS()
	defer attacker.Close()
	h := paperHost(t, includesDropIns)
	h.public = x509.NewCertPool()
	h.public.AddCert(attacker.Certificate())
	before := files(t, h.Root)
	asIs := func(b []byte) []byte { return b }
	foreign := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(posterntestKey(t))))
	var genuine []byte
	for _, c := range []struct {
		what            string
		request, answer func([]byte) []byte
	}{
		{"another CA of users", asIs, func(b []byte) []byte {
			genuine = b
			return bytes.Replace(b, []byte(`"user_cas":"`), []byte(`"user_cas":"`+foreign+`\n`), 1)
		}},
		{"no signature", asIs, func(b []byte) []byte {
			var s struct{ Answer json.RawMessage }
			must(t, json.Unmarshal(b, &s))
			return s.Answer
		}},
		{"the answer to another request", asIs, func([]byte) []byte { return genuine }},
		{"another SSH key in the request", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"ssh_keys":["ssh-ed25519 `),
				[]byte(`"ssh_keys":["`+foreign+`","ssh-ed25519 `), 1)
		}, asIs},
	} {
		change, request = c.answer, c.request
		_, err := h.Join(t.Context(), Options{Server: attacker.URL, Token: token, Apply: true})
		wantCode(t, c.what, err, postern.Denied)
	}
	after := files(t, h.Root)
	for name := range after {
		if before[name] == "" && !strings.HasSuffix(name, KeyFile) {
			t.Errorf("%s was written", name)
		}
	}
	change, request = asIs, asIs
	_, err = h.Join(t.Context(), Options{Server: attacker.URL, Token: token, Apply: true})
	wantCode(t, "by a proxy that shows no host's certificate", err, postern.Denied)
	_, err = h.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true})
	must(t, err)
}

// TestNothingIsSentToAnotherServer has a server with a root of its own answer.
func TestNothingIsSentToAnotherServer(t *testing.T) {
	i, other := install(t), install(t)
	var posts atomic.Int64
	attacker := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
		}
		// It knows the right root, which is public.
		_, _ = w.Write(ca.EncodeCertificates(i.ca.Root()))
	}))
	attacker.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	attacker.StartTLS()
	defer attacker.Close()
	token := i.invite(t, false, "hv1")
	h := paperHost(t, includesDropIns)
	before := files(t, h.Root)
	for what, want := range map[string]struct {
		url  string
		code postern.Code
	}{"another installation": {other.url, postern.Denied}, "an attacker": {attacker.URL, postern.Unavailable}} {
		_, err := h.Join(t.Context(), Options{Server: want.url, Token: token, Apply: true})
		wantCode(t, what, err, want.code)
	}
	if posts.Load() > 0 {
		t.Error("the attacker was sent the token")
	}
	wantSame(t, "refused", before, files(t, h.Root))
}

// TestHostsOwnSettings leaves alone what an administrator wrote into sshd_config.
func TestHostsOwnSettings(t *testing.T) {
	i := install(t)
	h := paperHost(t, includesDropIns+"RevokedKeys /etc/ssh/lost_keys\n")
	before := files(t, h.Root)
	token := i.invite(t, false, "hv1")
	_, err := h.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true})
	wantCode(t, "a list of revoked keys of the host's own", err, postern.Conflict)
	wantSame(t, "refused", before, files(t, h.Root))
	must(t, os.WriteFile(h.path("/etc/ssh/sshd_config"), []byte(includesDropIns), 0o644))
	_, err = h.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true}) // the token is not used up
	must(t, err)
}

func TestClockOfTheHost(t *testing.T) {
	root := &x509.Certificate{
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:  time.Date(2046, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	server := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	must(t, checkClock(root, server, server.Add(time.Minute)))
	for _, now := range []time.Time{server.AddDate(1, 0, 0), server.AddDate(-1, 0, 0)} {
		err := checkClock(root, server, now)
		wantCode(t, now.String(), err, postern.Unavailable)
		if !strings.Contains(err.Error(), now.Format(time.RFC3339)) || postern.HintOf(err) == "" {
			t.Errorf("%v does not say what the clock says", err)
		}
	}
	wantCode(t, "no date", checkClock(root, time.Time{}, server.AddDate(-1, 0, 0)), postern.Unavailable)
}

func posterntestKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	key, _ := posterntest.NewSSHKey(t, t.TempDir(), "key")
	return key.PublicKey()
}
