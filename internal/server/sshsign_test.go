package server_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
)

// signRig is a state with a CA, whose signing service is up.
type signRig struct {
	*servertest.SSH
	ca   *ca.Authority
	url  string
	root string // file with the CA's root
}

func newSignRig(t *testing.T, people ...string) *signRig {
	t.Helper()
	rig := &signRig{SSH: servertest.NewSSH(t, people...)}
	var err error
	if rig.ca, _, err = ca.Ensure(t.Context(), ca.Config{}, rig.State.Store.CA()); err != nil {
		t.Fatal(err)
	}
	key, csr := posterntest.NewCSR(t)
	issued, err := rig.ca.IssueCSR(t.Context(), csr, ca.SignRequest{
		Profile: ca.ProfileServer,
		Names:   []string{"localhost"},
	})
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	for _, c := range rig.ca.Intermediates(ca.Client) {
		clients.AddCert(c)
	}
	// As the HTTPS server does, check that the certificate's credential is active.
	identify := func(r *http.Request) (postern.Actor, bool) {
		if len(r.TLS.VerifiedChains) == 0 {
			return postern.Actor{}, false
		}
		c, err := rig.State.Store.People().Credential(r.Context(), postern.X509Certificate,
			ca.SerialString(r.TLS.PeerCertificates[0].SerialNumber))
		active := err == nil && c.Status == postern.CredentialActive
		return postern.Actor{Person: c.Person, Credential: c.Link()}, active
	}
	srv := httptest.NewUnstartedServer(server.NewSSHSignHandler(rig.State, rig.ca, rig.OneTime, identify,
		slog.New(slog.DiscardHandler)))
	srv.TLS = &tls.Config{
		Certificates: []tls.Certificate{
			{Certificate: [][]byte{issued.Leaf.Raw, issued.Chain[0].Raw}, PrivateKey: key},
		},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	rig.url = "https://localhost:" + port
	rig.root = filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(rig.root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rig.ca.Root().Raw}),
		0o644); err != nil {
		t.Fatal(err)
	}
	return rig
}

// login gets a certificate for alice's key by a code, and returns its serial number.
func (r *signRig) login(t *testing.T, key, code string, change func(*client.Login)) (uint64, error) {
	t.Helper()
	l := client.Login{
		Server: r.url, CA: r.root, Key: key, Person: "alice",
		Code: func(string) (string, error) { return code, nil },
	}
	if change != nil {
		change(&l)
	}
	signed, err := l.Run(t.Context())
	return signed.Serial, err
}

// knownHosts writes a known_hosts file that trusts the host CA.
func (r *signRig) knownHosts(t *testing.T, h *posterntest.Host) string {
	t.Helper()
	lines, err := r.ca.KnownHosts()
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, "known_hosts", lines)
	return filepath.Join(h.Dir, "known_hosts")
}

// certificateHost is a host that accepts only certificates of the rig's CA, and has a host
// certificate.
func certificateHost(t *testing.T, rig *signRig) *posterntest.Host {
	t.Helper()
	userCA, err := rig.ca.TrustedUserCAs()
	if err != nil {
		t.Fatal(err)
	}
	krl, err := rig.ca.KRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, keyFile := posterntest.NewSSHKey(t, t.TempDir(), "host2")
	private, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := rig.ca.SignSSHHost(t.Context(), ca.SSHHostRequest{
		Names: []string{"127.0.0.1"},
		Key:   key.PublicKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	files := servertest.SSHDFiles(t, setup.Setup{
		Mode: setup.Certificates, UserCA: userCA, KRL: krl, HostCertificate: "/etc/ssh/host2-cert.pub",
		Module: posterntest.PAMModule(t), Socket: "@DIR@/pam.sock",
	}, "HostKey /etc/ssh/host2\n")
	files["/etc/ssh/host2"], files["/etc/ssh/host2-cert.pub"] = string(private), string(issued.Line())
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}, {Name: "deploy"}}, Files: files,
	})
	rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)
	return h
}

// ssh runs OpenSSH's client on the host, trusting it by its certificate alone.
func clientOf(h *posterntest.Host, known string, args ...string) *exec.Cmd {
	return h.Command("ssh", append([]string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known,
	}, args...)...)
}

func TestOneCodeInTheMorning(t *testing.T) {
	posterntest.NeedRoot(t)
	posterntest.Need(t, "ssh-agent")
	rig := newSignRig(t, "alice", "bob")
	h := certificateHost(t, rig)
	known := rig.knownHosts(t, h)
	key, cert := h.KeyFile+".pub", h.KeyFile+"-cert.pub"

	if out, err := clientOf(h, known, "-i", h.KeyFile, "alice@127.0.0.1", "true").CombinedOutput(); err == nil {
		t.Fatalf("a bare key opens the host: %s", out)
	}
	for name, code := range map[string]string{
		"no code": "", "a wrong code": strings.Repeat("c", 44),
		"another person's code": rig.Touch(t, "bob"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := rig.login(t, key, code, nil); postern.CodeOf(err) != postern.Denied {
				t.Errorf("signed: %v", err)
			}
			if _, err := os.Stat(cert); err == nil {
				t.Fatal("there is a certificate")
			}
		})
	}
	code := rig.Touch(t, "alice")
	serial, err := rig.login(t, key, code, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := clientOf(h, known, "-i", h.KeyFile, "alice@127.0.0.1", "id -un").CombinedOutput()
	if err != nil || string(out) != "alice\n" {
		t.Fatalf("%v: %s\n%s", err, out, h.Log())
	}
	if out, err := clientOf(h, known, "-i", h.KeyFile, "deploy@127.0.0.1", "true").CombinedOutput(); err == nil {
		t.Errorf("alice's certificate opens deploy's account: %s", out)
	}
	if _, err := rig.login(t, key, code, nil); postern.CodeOf(err) != postern.Denied {
		t.Errorf("the code works twice: %v", err)
	}

	// After its revocation it is refused when the host has the list.
	if err := rig.ca.RevokeSSH(t.Context(), serial, postern.Actor{}); err != nil {
		t.Fatal(err)
	}
	krl, err := rig.ca.KRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.Output(h.Inside("/etc/ssh/postern_revoked"), krl, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := clientOf(h, known, "-i", h.KeyFile, "alice@127.0.0.1", "true").CombinedOutput(); err == nil {
		t.Errorf("a revoked certificate opens the host: %s", out)
	}

	t.Run("with the agent", func(t *testing.T) {
		socket := filepath.Join(h.Dir, "agent")
		posterntest.StartSSHAgent(t, socket)
		if _, err := rig.login(t, "", rig.Touch(t, "alice"), func(l *client.Login) { l.Agent = true }); err != nil {
			t.Fatal(err)
		}
		cmd := clientOf(h, known, "-o", "IdentityAgent="+socket, "-o", "IdentityFile=none", "alice@127.0.0.1",
			"id -un")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "alice\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("with a client certificate", func(t *testing.T) {
		private, csr := posterntest.NewCSR(t)
		issued, err := rig.ca.IssueCSR(t.Context(), csr, ca.SignRequest{Profile: ca.ProfileClient, Person: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "alice.pem")
		text := append(issued.PEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		byCertificate := func(l *client.Login) { l.Person, l.Cert, l.Code = "", file, nil }
		if _, err := rig.login(t, key, "", byCertificate); err != nil {
			t.Fatal(err)
		}
		if out, err := clientOf(h, known, "-i", h.KeyFile, "alice@127.0.0.1", "id -un").CombinedOutput(); err != nil ||
			string(out) != "alice\n" {
			t.Errorf("%v: %s", err, out)
		}
		if err := rig.State.Store.People().SetPersonStatus(t.Context(), "alice", postern.PersonSuspended); err != nil {
			t.Fatal(err)
		}
		if out, err := clientOf(h, known, "-i", h.KeyFile, "alice@127.0.0.1", "true").CombinedOutput(); err == nil {
			t.Errorf("a suspended person's certificate opens the host: %s", out)
		}
		if _, err := rig.login(t, key, "", byCertificate); err == nil {
			t.Error("a suspended person gets a certificate")
		}
	})
}

func TestRulesForCertificates(t *testing.T) {
	posterntest.NeedRoot(t)
	rig := newSignRig(t, "alice")
	h := certificateHost(t, rig)
	known, key := rig.knownHosts(t, h), h.KeyFile+".pub"
	for _, c := range []struct {
		rules string
		user  string
		out   string // of the command "echo hello"; empty: refused
	}{
		{`[{"principals":["{person}","deploy"],"extensions":["permit-pty"]}]`, "deploy", "hello\n"},
		{`[{"principals":["deploy"]}]`, "alice", ""},
		{`[{"force_command":"echo forced"}]`, "alice", "forced\n"},
		{`[{"sources":["192.0.2.0/24"]}]`, "alice", ""},
		{`[{"sources":["127.0.0.0/8"],"validity":"1h"}]`, "alice", "hello\n"},
	} {
		t.Run(c.user+" by "+c.rules, func(t *testing.T) {
			if err := os.WriteFile(rig.State.Path(server.SSHRulesFile), []byte(c.rules), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := rig.login(t, key, rig.Touch(t, "alice"), nil); err != nil {
				t.Fatal(err)
			}
			out, err := clientOf(h, known, "-i", h.KeyFile, c.user+"@127.0.0.1", "echo hello").Output()
			if string(out) != c.out || (err == nil) != (c.out != "") {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	for _, rules := range []string{
		`[{"groups":["nobody"]}]`, `[]`, `[{"validity":"soon"}]`, `{`,
		`[{"principal":"alice"}]`,
	} {
		t.Run("refused by "+rules, func(t *testing.T) {
			if err := os.WriteFile(rig.State.Path(server.SSHRulesFile), []byte(rules), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := rig.login(t, key, rig.Touch(t, "alice"), nil); err == nil {
				t.Error("there is a certificate")
			}
		})
	}
}

// TestSigningPage uses the page as a browser does, and as an attacker's page in the same
// browser would.
func TestSigningPage(t *testing.T) {
	rig := newSignRig(t, "alice")
	_, keyFile := posterntest.NewSSHKey(t, t.TempDir(), "key")
	public, err := os.ReadFile(keyFile + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	roots, err := client.ReadRoots(rig.root)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	post := func(code, site string) (int, string) {
		form := fmt.Sprintf("public_key=%s&person=alice&code=%s",
			strings.ReplaceAll(strings.ReplaceAll(string(public), "+", "%2B"), " ", "+"), code)
		req, _ := http.NewRequest(http.MethodPost, rig.url+"/ssh/sign", strings.NewReader(form))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", site)
		resp, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		return resp.StatusCode, b.String()
	}
	if status, page := post(rig.Touch(t, "alice"), "same-origin"); status != 200 ||
		!strings.Contains(page, "ssh-ed25519-cert-v01@openssh.com") {
		t.Errorf("%d: %s", status, page)
	}
	if status, page := post("<script>", "same-origin"); status != 403 || strings.Contains(page, "<script>") ||
		!strings.Contains(page, "not accepted") {
		t.Errorf("%d: %s", status, page)
	}
	if status, page := post(rig.Touch(t, "alice"), "cross-site"); status != 403 || strings.Contains(page, "cert-v01") {
		t.Errorf("another site's page: %d: %s", status, page)
	}
	for path, want := range map[string]string{
		"/ssh/sign": "<form", "/ssh/known_hosts": "@cert-authority",
		"/ssh/user_ca": "ecdsa",
	} {
		resp, err := browser.Get(rig.url + path)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		resp.Body.Close()
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: %s", path, b.String())
		}
	}
}
