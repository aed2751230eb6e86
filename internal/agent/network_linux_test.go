package agent

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/remote"
)

// TestMain runs the tests, or, in a process that an agent starts, what talks to the network.
func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{"agent", "network"}) {
		err := Network(context.Background(), os.Stdin, os.NewFile(3, "socket"), slog.New(slog.DiscardHandler))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(posterntest.Run(m))
}

// credentialsOf writes the certificate of a test's server, and shows it as a client, too.
func credentialsOf(t *testing.T, s *httptest.Server) Credentials {
	t.Helper()
	dir := t.TempDir()
	c := Credentials{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	c.CA = c.Cert
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		c.Cert: {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, c.Key: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// children returns the processes that this one started.
func children(t *testing.T) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		pids = append(pids, strings.Fields(posterntest.Read(t, file))...)
	}
	return pids
}

// TestTheNetworkProcessHasNoRights reaches a server as root does: what talks to the network
// has no capability, forwards nothing but an agent's requests, and its memory, with the
// host's key in it, cannot be read by others of its user.
func TestTheNetworkProcessHasNoRights(t *testing.T) {
	posterntest.NeedRoot(t)
	asked := make(chan string, 8)
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
	}))
	defer s.Close()
	before := children(t)
	to, stop, err := Server{URLs: []string{s.URL}, Credentials: credentialsOf(t, s)}.Reach(t.Context(),
		filepath.Join(t.TempDir(), "agent"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for path, want := range map[string]int{
		remote.Prefix + "code": http.StatusOK, "/api/host/join": http.StatusNotFound,
	} {
		res, err := to.Client.Get(to.Base + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: status %d", path, res.StatusCode)
		}
	}
	if path := <-asked; path != remote.Prefix+"code" || len(asked) != 0 {
		t.Errorf("the server was asked for %s, and %d more", path, len(asked))
	}
	pids := slices.DeleteFunc(children(t), func(pid string) bool { return slices.Contains(before, pid) })
	if len(pids) != 1 {
		t.Fatalf("processes %q", pids)
	}
	status := posterntest.Read(t, "/proc/"+pids[0]+"/status")
	for _, want := range []string{"CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "Groups:\t \n"} {
		if !strings.Contains(status, want) {
			t.Errorf("its status has not %q:\n%s", want, status)
		}
	}
	user := networkUser()
	if !strings.Contains(status, fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", user.Uid)) {
		t.Errorf("it is not of user %d:\n%s", user.Uid, status)
	}
	for pid, may := range map[string]bool{"self": true, pids[0]: false} {
		read := exec.Command("head", "-c", "0", "/proc/"+pid+"/environ") // as for its memory, see proc(5)
		read.SysProcAttr = &syscall.SysProcAttr{Credential: user}
		if out, err := read.CombinedOutput(); (err == nil) != may {
			t.Errorf("another process of its user reads /proc/%s: %v, %s", pid, err, out)
		}
	}
}

// TestTheNetworkProcessUsesTheProxy reaches a server that is reached by a proxy alone.
func TestTheNetworkProcessUsesTheProxy(t *testing.T) {
	posterntest.NeedRoot(t)
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		to, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(to, from); to.Close() }()
		go func() { _, _ = io.Copy(from, to); from.Close() }()
	}))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	c := Server{URLs: []string{"https://example.com"}, Credentials: credentialsOf(t, s)} // the name in its certificate
	to, stop, err := c.Reach(t.Context(), filepath.Join(t.TempDir(), "agent"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	res, err := to.Client.Get(to.Base + remote.Prefix + "code")
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusOK {
		t.Errorf("the server is not reached: %s", res.Status)
	}
}
