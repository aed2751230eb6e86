package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ssh"
)

// TestHostStaysCurrent follows a host from one certificate to the next.
func TestHostStaysCurrent(t *testing.T) {
	i, h := install(t), paperHost(t, includesDropIns)
	_, err := h.Refresh(t.Context(), nil)
	wantCode(t, "before joining", err, postern.NotFound)
	token := i.invite(t, false, "hv1")
	i.lose.Store(true)
	_, err = h.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true})
	wantCode(t, "a lost answer", err, postern.Unavailable)
	i.lose.Store(false)
	join := func(host Host, token string) error {
		_, err := host.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true})
		return err
	}
	must(t, join(h, token))
	wantCode(t, "another host with that token", join(paperHost(t, includesDropIns), token), postern.Denied)

	must(t, i.db.Hosts().ChangeHost(t.Context(), postern.Actor{}, "hv1", func(h *postern.Host) error {
		h.Names = []string{"hv1.example.com"}
		return nil
	}, postern.Event{}))
	_, err = h.Refresh(t.Context(), []string{"a problem"})
	must(t, err)
	line := posterntest.Read(t, h.path("/etc/ssh/ssh_host_ed25519_key-cert.pub"))
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	must(t, err)
	if names := key.(*ssh.Certificate).ValidPrincipals; len(names) != 2 || names[1] != "hv1.example.com" {
		t.Errorf("the certificate is for %q", names)
	}
	said, err := i.db.Hosts().Host(t.Context(), "hv1")
	must(t, err)
	if len(said.Keys) != 1 || said.Version != "1" || len(said.Problems) != 1 || said.Serves[0] != "ssh" {
		t.Errorf("the server knows %+v", said)
	}

	_, _, err = i.ca.NewSSHCA(t.Context(), ca.SSHUser)
	must(t, err)
	changed, err := h.Refresh(t.Context(), nil)
	must(t, err)
	if cas := posterntest.Read(t, h.path(setup.UserCAFile)); strings.Count(cas, "\n") != 2 || len(changed) != 1 {
		t.Errorf("after a second user CA %q changed, and sshd trusts\n%s", changed, cas)
	}

	i.setStatus(t, "hv1", postern.HostSuspended)
	_, err = h.Refresh(t.Context(), nil)
	wantCode(t, "suspended", err, postern.Denied)
	i.setStatus(t, "hv1", postern.HostJoined)
	must(t, join(h, "")) // repairs without a token
	i.setStatus(t, "hv1", postern.HostRemoved)
	_, err = h.Refresh(t.Context(), nil)
	wantCode(t, "removed", err, postern.Denied)
	wantCode(t, "removed, with its old token", join(h, token), postern.Denied)
	must(t, join(h, i.invite(t, false, "hv1")))
	_, err = h.Refresh(t.Context(), nil)
	must(t, err)
}

// TestAnotherProcessTalksToTheNetwork keeps a host current through a client of another
// process, which shows the certificate: this one can read no key.
func TestAnotherProcessTalksToTheNetwork(t *testing.T) {
	i, h := install(t), paperHost(t, includesDropIns)
	_, err := h.Join(t.Context(), Options{Server: i.url, Token: i.invite(t, false, "hv1"), Apply: true})
	must(t, err)
	pair, err := tls.LoadX509KeyPair(h.path(CertFile), h.path(KeyFile))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(i.ca.Root())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{pair},
	}}}
	must(t, os.Rename(h.path(KeyFile), h.path(KeyFile+".away")))
	must(t, i.ca.RevokeSSHKey(t.Context(), posterntestKey(t), postern.Actor{}))
	before := posterntest.Read(t, h.path(setup.KRLFile))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Follow(ctx, client, i.url, func(context.Context) []string { return []string{"high: a hole"} },
			slog.New(slog.DiscardHandler))
	}()
	eventually(t, "the server knows the problem", func() bool {
		said, err := i.db.Hosts().Host(t.Context(), "hv1")
		must(t, err)
		return len(said.Problems) == 1
	})
	eventually(t, "sshd has the new list", func() bool {
		return posterntest.Read(t, h.path(setup.KRLFile)) != before
	})
	cancel()
	<-done
}

// TestSSHDReadsItsCertificates has sshd not reload after its certificates were renewed:
// the next time it does, once.
func TestSSHDReadsItsCertificates(t *testing.T) {
	i, h := install(t), paperHost(t, includesDropIns)
	_, err := h.Join(t.Context(), Options{Server: i.url, Token: i.invite(t, false, "hv1"), Apply: true})
	must(t, err)
	must(t, i.db.Hosts().ChangeHost(t.Context(), postern.Actor{}, "hv1", func(h *postern.Host) error {
		h.Names = []string{"hv1.example.com"}
		return nil
	}, postern.Event{}))
	notified, fails := 0, errors.New("systemd does not answer")
	h.SSHD.Reload = func(context.Context) error { notified++; return fails }
	for want := range 3 {
		if _, err := h.Refresh(t.Context(), nil); !errors.Is(err, fails) {
			t.Errorf("a reload that fails: %v", err)
		}
		if notified != want+1 {
			t.Errorf("sshd was notified %d times, want %d", notified, want+1)
		}
	}
	fails = nil
	for range 2 {
		_, err := h.Refresh(t.Context(), nil)
		must(t, err)
	}
	if notified != 4 {
		t.Errorf("sshd was notified %d times, want 4", notified)
	}
	_, err = h.Leave(t.Context())
	must(t, err)
}

// TestNoOlderRevocationList has a server that was rolled back answer a host: what was
// revoked since stays revoked. A token that was made meanwhile admits the host to it.
func TestNoOlderRevocationList(t *testing.T) {
	i, h := install(t), paperHost(t, includesDropIns)
	join := func(token string) error {
		_, err := h.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true})
		return err
	}
	must(t, join(i.invite(t, false, "hv1")))
	revision := func(sql string) {
		must(t, i.db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE counters SET value = `+sql+` WHERE name = 'ssh-revision'`)
			return err
		}))
	}
	revision("value + 7")
	_, err := h.Refresh(t.Context(), nil)
	must(t, err)
	newest := posterntest.Read(t, h.path(setup.KRLFile))
	revision("value - 3")
	_, _, err = i.ca.NewSSHCA(t.Context(), ca.SSHUser)
	must(t, err)
	before := files(t, h.Root)
	_, err = h.Refresh(t.Context(), nil)
	wantCode(t, "an older list", err, postern.Denied)
	wantCode(t, "an older list, repaired", join(""), postern.Denied)
	wantSame(t, "an older list", before, files(t, h.Root))
	must(t, join(i.invite(t, true, "hv1")))
	if posterntest.Read(t, h.path(setup.KRLFile)) == newest {
		t.Error("a token does not admit the host to a server that was set up anew")
	}
}

// TestCertificatesAreRenewed has what a host holds end soon.
func TestCertificatesAreRenewed(t *testing.T) {
	i, h := install(t), paperHost(t, includesDropIns)
	token := i.invite(t, false, "hv1", "hv1.example.com")
	_, err := h.Join(t.Context(), Options{Server: i.url, Token: token, Apply: true})
	must(t, err)
	key, err := ca.GenerateKey(ca.P256)
	must(t, err)
	encoded, err := ca.EncodeKey(key, nil)
	must(t, err)
	ending := ca.Period{NotBefore: time.Now().Add(-3 * time.Hour), NotAfter: time.Now().Add(time.Hour)}
	put := func(file string, data []byte) {
		must(t, os.MkdirAll(filepath.Dir(h.path(file)), 0o755))
		must(t, os.WriteFile(h.path(file), data, 0o600))
	}
	serve := func(name string) string {
		issued, err := i.ca.IssueServer(t.Context(), ca.ServerRequest{
			Names: []string{name}, Key: key.Public(), Period: ending,
		})
		must(t, err)
		put(libvirtCert, issued.PEM())
		return string(issued.PEM())
	}
	put(libvirtKey, encoded)
	put(libvirtCA, ca.EncodeCertificates(i.ca.Root()))
	old := serve("hv1.example.com")
	changed, err := h.Refresh(t.Context(), nil)
	must(t, err)
	if len(changed) != 1 || changed[0] != libvirtCert {
		t.Fatalf("%q changed", changed)
	}
	if _, err := tls.LoadX509KeyPair(h.path(libvirtCert), h.path(libvirtKey)); err != nil ||
		posterntest.Read(t, h.path(libvirtCert)) == old {
		t.Errorf("libvirt has the old certificate, or another key's: %v", err)
	}

	// The name of another host is not renewed here, and that keeps nothing else back.
	serve("hv2.example.com")
	must(t, i.ca.RevokeSSHKey(t.Context(), posterntestKey(t), postern.Actor{}))
	changed, err = h.Refresh(t.Context(), nil)
	wantCode(t, "another host's name", err, postern.Denied)
	if len(changed) != 1 || changed[0] != setup.KRLFile {
		t.Errorf("%q changed", changed)
	}

	must(t, os.Remove(h.path(libvirtCert)))
	must(t, os.Remove(h.path("/etc/ssh/ssh_host_ed25519_key-cert.pub")))
	must(t, os.WriteFile(h.path(CertFile), []byte("damaged"), 0o644))
	_, err = h.Refresh(t.Context(), nil)
	wantCode(t, "without its certificate", err, postern.Denied)
}

// TestAnotherHostsAnswer has a host send on the request of another with its own certificate, as
// it can that an attacker controls: its names and certificates are not the other's.
func TestAnotherHostsAnswer(t *testing.T) {
	i := install(t)
	joined := func(name string) Host {
		h := paperHost(t, includesDropIns)
		_, err := h.Join(t.Context(), Options{Server: i.url, Token: i.invite(t, false, name), Apply: true})
		must(t, err)
		return h
	}
	h, attacker := joined("hv1"), joined("hv2")
	s, err := attacker.State()
	must(t, err)
	between, err := attacker.reach(t.Context(), Options{}, s)
	must(t, err)
	before := files(t, h.Root)
	h.through = between
	_, err = h.Refresh(t.Context(), nil)
	wantCode(t, "another host's answer", err, postern.Denied)
	_, err = h.Join(t.Context(), Options{Server: i.url, Apply: true})
	wantCode(t, "another host's answer to a repair", err, postern.Denied)
	wantSame(t, "refused", before, files(t, h.Root))
}

// TestAHalfBlockOfKnownHosts has an administrator remove the line that ends ours: the lines
// behind it stay.
func TestAHalfBlockOfKnownHosts(t *testing.T) {
	i, h := install(t), paperHost(t, includesDropIns)
	_, err := h.Join(t.Context(), Options{Server: i.url, Token: i.invite(t, false, "hv1"), Apply: true})
	must(t, err)
	path := h.path(knownHosts)
	text := strings.Replace(posterntest.Read(t, path), blockEnd, "own.example.com ssh-ed25519 AAAA\n", 1)
	must(t, os.WriteFile(path, []byte(text), 0o644))
	_, err = h.Refresh(t.Context(), nil)
	wantCode(t, "a refresh", err, postern.Conflict)
	_, err = h.Leave(t.Context())
	wantCode(t, "leaving", err, postern.Conflict)
	if posterntest.Read(t, path) != text {
		t.Errorf("the file is now %q", posterntest.Read(t, path))
	}
	must(t, os.WriteFile(path, []byte(text+blockEnd), 0o644))
	_, err = h.Leave(t.Context())
	must(t, err)
}
