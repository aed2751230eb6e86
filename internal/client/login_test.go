package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/sign"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const knownHosts = "@cert-authority * ssh-ed25519 AAAA\n"

// authority signs, and takes the code "right" of alice.
type authority struct{ ssh.Signer }

func (a authority) SignUser(_ context.Context, _ postern.Actor, c sign.Certificate) (sign.Signed, error) {
	until := time.Now().Add(time.Hour)
	cert := &ssh.Certificate{
		Key: c.Key, CertType: ssh.UserCert, KeyId: c.Person, Serial: 7, ValidPrincipals: c.Principals,
		ValidBefore: uint64(until.Unix()),
	}
	err := cert.SignCert(rand.Reader, a)
	line := string(ssh.MarshalAuthorizedKey(cert))
	return sign.Signed{Line: line, Serial: 7, Principals: c.Principals, ValidBefore: until, KnownHosts: knownHosts},
		err
}

func (authority) KnownHosts() (string, error) { return knownHosts, nil }

func (authority) UserCAs() ([]byte, error) { return nil, nil }

func (authority) CheckCode(_ context.Context, a sshd.Attempt) (sshd.Proof, error) {
	if a.Code != "right" || a.User != "alice" {
		return sshd.Proof{}, postern.Errorf(postern.Denied,
			"the code was not accepted").WithHint("touch the key once more")
	}
	return sshd.Proof{Person: "alice"}, nil
}

func (authority) CheckAccount(_ context.Context, user string) (string, error) { return user, nil }

// signServer serves /ssh/sign over TLS and returns its URL and a file with its
// certificate. A client certificate proves bob.
func signServer(t *testing.T) (url, root string) {
	t.Helper()
	signer, _ := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	a := authority{signer}
	srv := httptest.NewUnstartedServer(sign.NewHandler(sign.Deps{
		Signer: a, Check: a, Log: slog.New(slog.DiscardHandler),
		Certificate: func(_ context.Context, person string, key ssh.PublicKey) (sign.Certificate, error) {
			return sign.Certificate{Person: person, Key: key, Principals: []string{person}}, nil
		},
		Identify: func(r *http.Request) (postern.Actor, bool) {
			return postern.Actor{Person: "bob"}, len(r.TLS.PeerCertificates) > 0
		},
		Address: func(*http.Request) string { return "127.0.0.1" },
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	root = filepath.Join(t.TempDir(), "root.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(root, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return srv.URL, root
}

func typed(code string) func(string) (string, error) {
	return func(string) (string, error) { return code, nil }
}

func TestLoginWritesACertificateBesideTheKey(t *testing.T) {
	url, root := signServer(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	posterntest.NewSSHKey(t, filepath.Join(home, ".ssh"), "id_ed25519")
	file := filepath.Join(home, ".ssh/id_ed25519-cert.pub")
	l := Login{Server: url, CA: root, Person: "alice", Code: typed("wrong"), KnownHosts: true}
	_, err := l.Run(t.Context())
	if postern.CodeOf(err) != postern.Denied || !strings.Contains(err.Error(), "not accepted") {
		t.Error("a wrong code:", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("there is a certificate:", err)
	}
	l.Code = typed("right")
	for range 2 {
		signed, err := l.Run(t.Context())
		if err != nil || signed.Serial != 7 || !slices.Equal(signed.Principals, []string{"alice"}) {
			t.Fatalf("%+v, %v", signed, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != signed.Line {
			t.Errorf("%s, %v", b, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(home, ".ssh/known_hosts")); err != nil || string(b) != knownHosts {
		t.Errorf("known hosts: %q, %v", b, err)
	}
	none := errors.New("nothing typed")
	l.Code = func(string) (string, error) { return "", none }
	if _, err := l.Run(t.Context()); !errors.Is(err, none) {
		t.Error(err)
	}
}

func TestLoginShowsAClientCertificate(t *testing.T) {
	url, root := signServer(t)
	dir := t.TempDir()
	_, key := posterntest.NewSSHKey(t, dir, "key")
	pair := filepath.Join(dir, "bob.pem")
	writePair(t, pair)
	signed, err := Login{Server: url, CA: root, Cert: pair, Key: key + ".pub"}.Run(t.Context())
	if err != nil || !slices.Equal(signed.Principals, []string{"bob"}) {
		t.Errorf("%+v, %v", signed, err)
	}
	if _, err := (Login{Server: url, CA: root, Cert: root, Key: key + ".pub"}).
		Run(t.Context()); postern.CodeOf(err) != postern.Invalid {
		t.Error("a certificate without its key:", err)
	}
}

// writePair writes a self-signed certificate with its key.
func writePair(t *testing.T, file string) {
	t.Helper()
	openssl := posterntest.Need(t, "openssl")
	out, err := exec.Command(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN=bob", "-keyout", file+".key", "-out", file+".crt").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var both []byte
	for _, part := range []string{".crt", ".key"} {
		b, err := os.ReadFile(file + part)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLoginUsesNoCodeWithoutAnAgent does not even ask for one.
func TestLoginUsesNoCodeWithoutAnAgent(t *testing.T) {
	url, root := signServer(t)
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(t.TempDir(), "none"))
	asked := false
	ask := func(string) (string, error) { asked = true; return "right", nil }
	_, err := Login{Server: url, CA: root, Person: "alice", Code: ask, Agent: true}.Run(t.Context())
	if postern.CodeOf(err) != postern.Unavailable || postern.HintOf(err) == "" || asked {
		t.Errorf("asked %t, %v", asked, err)
	}
}

func TestLoginAddsAKeyToTheAgent(t *testing.T) {
	url, root := signServer(t)
	socket := filepath.Join(t.TempDir(), "agent")
	posterntest.StartSSHAgent(t, socket)
	signed, err := Login{Server: url, CA: root, Person: "alice", Code: typed("right"), Agent: true}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keys, err := agent.NewClient(conn).List()
	if err != nil || !slices.ContainsFunc(keys, func(k *agent.Key) bool {
		return strings.HasPrefix(signed.Line, k.Format+" ")
	}) {
		t.Errorf("the agent has %v, %v", keys, err)
	}
}

func TestLoginsThatCannotBe(t *testing.T) {
	url, root := signServer(t)
	_, key := posterntest.NewSSHKey(t, t.TempDir(), "key")
	elsewhere := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(elsewhere.Close)
	for _, c := range []struct {
		name string
		l    Login
		want postern.Code
	}{
		{"plain HTTP", Login{Server: "http://id.example.com"}, postern.Invalid},
		{"no server", Login{Server: ""}, postern.Invalid},
		{"no file of CAs", Login{Server: url, CA: root + ".absent"}, postern.NotFound},
		{"a file without a CA", Login{Server: url, CA: key}, postern.Invalid},
		{"a server that is not trusted", Login{Server: url, Key: key + ".pub"}, postern.Unavailable},
		{"another server", Login{Server: elsewhere.URL, CA: root, Key: key + ".pub"}, postern.Denied},
		{"no key", Login{Server: url, CA: root, Key: key + ".absent"}, postern.NotFound},
		{"a private key", Login{Server: url, CA: root, Key: key}, postern.Invalid},
	} {
		c.l.Person, c.l.Code = "alice", typed("right")
		if _, err := c.l.Run(t.Context()); postern.CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
