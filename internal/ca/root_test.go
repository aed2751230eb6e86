package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"golang.org/x/crypto/ssh"
)

// TestARootIsFollowedByAnother holds, at each step of a root's life, which certificates a
// program verifies that trusts one root alone: before there is another, while both are
// trusted, and when the older one was retired.
func TestARootIsFollowedByAnother(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{Name: "Example", Domains: []string{"example.com", "localhost"}})
	verified := nss{}.verified
	first := a.Root()
	oldServer, oldClient := issueBoth(t, a)
	verified(t, "before", first, oldServer, true)
	verified(t, "before", first, oldClient, true)

	made, err := a.NewRoot(t.Context(), nil)
	must(t, err)
	second := a.Root()
	if made.ID != "root-2" || made.Key != nil || second.Equal(first) || len(a.Roots()) != 2 ||
		!a.Roots()[1].Equal(first) {
		t.Fatalf("made %+v; the roots are %v", made, a.Roots())
	}
	if second.Subject.CommonName != "Example Root CA 2" ||
		len(second.PermittedDNSDomains) != len(first.PermittedDNSDomains) {
		t.Errorf("the second root is %s, for %v", second.Subject, second.PermittedDNSDomains)
	}
	_, err = a.NewRoot(t.Context(), nil)
	wantCode(t, err, postern.Conflict, "two roots")
	newServer, newClient := issueBoth(t, a)
	for _, c := range []*ca.Issued{load(t, a, oldServer), load(t, a, oldClient), newServer, newClient} {
		verified(t, "overlap", first, c, true)
		verified(t, "overlap", second, c, true)
	}
	fetched(t, load(t, a, oldServer), first, second)
	fetched(t, newServer, first, second)

	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root"}), postern.Conflict, "2 certificates")
	left, err := a.Holders(t.Context(), "")
	must(t, err)
	if len(left) != 2 || left[0].CA != "root" {
		t.Errorf("to be renewed: %+v", left)
	}
	for _, c := range []*ca.Issued{oldServer, oldClient} {
		must(t, a.Revoke(t.Context(), c.Serial, postern.Superseded, postern.Actor{}))
	}
	must(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root"}))
	after := load(t, a, newServer)
	if len(a.Roots()) != 1 || !a.Roots()[0].Equal(second) || len(after.Chain) != 1 || len(after.Roots) != 1 {
		t.Errorf("after the first root was retired %d roots are trusted, and a chain has %d certificates",
			len(a.Roots()), len(after.Chain))
	}
	verified(t, "retired", second, after, true)
	verified(t, "retired", first, after, false)
	verified(t, "retired", second, newServer, true) // a chain that is out there
	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root"}), postern.Conflict, "already")
	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root-2"}), postern.Conflict, "in the place of root-2")
	third, err := a.NewRoot(t.Context(), nil)
	must(t, err)
	if third.ID != "root-3" {
		t.Errorf("the third root is %s", third.ID)
	}
}

func issueBoth(t *testing.T, a *ca.Authority) (server, client *ca.Issued) {
	t.Helper()
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}})
	must(t, err)
	client, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	return server, client
}

// load returns an issued certificate with the chain that it has now, and its key.
func load(t *testing.T, a *ca.Authority, c *ca.Issued) *ca.Issued {
	t.Helper()
	now, err := a.Load(t.Context(), c.Serial)
	must(t, err)
	now.Key = c.Key
	return now
}

// verified fails unless Go, OpenSSL, GnuTLS and NSS each verify a certificate with its chain
// and that root alone, or each refuse it.
func (n nss) verified(t *testing.T, step string, root *x509.Certificate, c *ca.Issued, want bool) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, certs ...*x509.Certificate) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, ca.EncodeCertificates(certs...), 0o600))
		return path
	}
	anchor, leaf, chain := file("root.pem", root), file("leaf.pem", c.Leaf), file("chain.pem", c.Chain...)
	all := file("all.pem", append([]*x509.Certificate{c.Leaf}, c.Chain...)...)
	purpose, usage, use := "sslserver", x509.ExtKeyUsageServerAuth, "1"
	if c.Profile == ca.ProfileClient {
		purpose, usage, use = "sslclient", x509.ExtKeyUsageClientAuth, "0"
	}
	programs := map[string][]string{
		"OpenSSL": {
			"openssl", "verify", "-no-CApath", "-no-CAstore", "-purpose", purpose, "-CAfile", anchor,
			"-untrusted", chain, leaf,
		},
		"GnuTLS": {"certtool", "--verify", "--load-ca-certificate", anchor, "--infile", all},
		"NSS": append([]string{"vfychain", "-d", n.trusting(t, root), "-u", use, "-a", leaf},
			each(file, c.Chain)...),
	}
	for name, args := range programs {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if (err == nil) != want {
			t.Errorf("%s: %s verifies %s by %s: %v, want %v\n%s", step, name, c.Subject, root.Subject, err == nil,
				want, out)
		}
	}
	anchors, others := x509.NewCertPool(), x509.NewCertPool()
	anchors.AddCert(root)
	for _, i := range c.Chain {
		others.AddCert(i)
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{
		Roots: anchors, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if (err == nil) != want {
		t.Errorf("%s: Go verifies %s by %s: %v, want %v", step, c.Subject, root.Subject, err, want)
	}
}

// each writes certificates to a file each.
func each(file func(string, ...*x509.Certificate) string, chain []*x509.Certificate) (paths []string) {
	for n, c := range chain {
		paths = append(paths, file(fmt.Sprint(n, ".pem"), c))
	}
	return paths
}

// nss has a directory for each root, with a database of NSS that trusts it.
type nss map[string]string

func (n nss) trusting(t *testing.T, root *x509.Certificate) string {
	t.Helper()
	dir := n[string(root.Raw)]
	if dir == "" {
		dir = t.TempDir()
		runs(t, "certutil", "-N", "-d", dir, "--empty-password")
		runs(t, "certutil", "-A", "-d", dir, "-n", "root", "-t", "CT,C,C", "-a", "-i",
			write(t, "root.pem", ca.EncodeCertificates(root)))
		n[string(root.Raw)] = dir
	}
	return dir
}

// fetched has curl fetch from a server that shows a certificate, once with each root.
func fetched(t *testing.T, c *ca.Issued, roots ...*x509.Certificate) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "public")
	}))
	shown := tls.Certificate{Certificate: [][]byte{c.Leaf.Raw}, PrivateKey: c.Key}
	for _, i := range c.Chain {
		shown.Certificate = append(shown.Certificate, i.Raw)
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{shown}}
	srv.StartTLS()
	defer srv.Close()
	port := srv.Listener.Addr().String()
	for _, root := range roots {
		out := runs(t, "curl", "-sS", "--noproxy", "*", "--cacert", write(t, "root.pem", ca.EncodeCertificates(root)),
			"--connect-to", "localhost:443:"+port, "https://localhost/")
		if out != "public" {
			t.Errorf("curl fetched %q", out)
		}
	}
}

// TestARetiredRootIsNotTrusted retires a root with the certificates that it vouches for.
func TestARetiredRootIsNotTrusted(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	first := a.Root()
	server, client := issueBoth(t, a)
	stale, err := ca.Open(t.Context(), ca.Config{}, db.CA()) // another server, which has not heard of it
	must(t, err)
	must(t, second(a.NewRoot(t.Context(), nil)))
	must(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root", Revoke: true}))
	for _, c := range []*ca.Issued{server, client} {
		if now := load(t, a, c); now.Revoked.IsZero() || now.Reason != postern.CessationOfOperation {
			t.Errorf("a certificate of the retired root is not revoked: %+v", now.Certificate)
		}
		crl, err := a.CRL(t.Context(), c.Issuer)
		must(t, err)
		if list, err := x509.ParseRevocationList(crl.DER); err != nil || len(list.RevokedCertificateEntries) != 1 {
			t.Errorf("the list of %s: %v, %v", c.Issuer, list, err)
		}
	}
	_, err = stale.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}})
	wantCode(t, err, postern.Unavailable, "retired")

	// Who has the retired root's key can make nothing that the new one vouches for.
	crl, err := a.CRL(t.Context(), "root-2")
	must(t, err)
	list, err := x509.ParseRevocationList(crl.DER)
	must(t, err)
	crosses, err := a.Certificates(t.Context(), ca.Filter{Profile: ca.ProfileCross, Issuers: []string{"root-2"}})
	must(t, err)
	if len(crosses) != 1 || len(list.RevokedCertificateEntries) != 1 ||
		ca.SerialString(list.RevokedCertificateEntries[0].SerialNumber) != crosses[0].Serial ||
		crosses[0].Subject != ca.SubjectString(first.RawSubject) {
		t.Errorf("root-2 has signed %+v of the old root and revoked %v", crosses, list.RevokedCertificateEntries)
	}
	must(t, stale.Reload(t.Context()))
	out, err := stale.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}})
	must(t, err)
	if out.Issuer != "server-2" || len(out.Chain) != 1 {
		t.Errorf("the other server issues by %s, with a chain of %d", out.Issuer, len(out.Chain))
	}
}

// TestRootKeysThatAreElsewhere follows a root whose key was removed, and removes the older
// root's key while there are two.
func TestRootKeysThatAreElsewhere(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	exported, err := a.ExportRootKey(t.Context(), "", []byte("a passphrase"))
	must(t, err)
	key, err := ca.ParseKey(exported, []byte("a passphrase"))
	must(t, err)
	must(t, a.RemoveRootKey(t.Context(), key))
	_, err = a.NewRoot(t.Context(), nil)
	wantCode(t, err, postern.Unavailable, "root's key is not on this machine")
	must(t, second(a.NewRoot(t.Context(), key)))
	if a.HasKey("root") || !a.HasKey("root-2") {
		t.Error("the first root's key stays here, or the second's is not here")
	}
	must(t, a.RestoreRootKey(t.Context(), key))
	must(t, a.RemoveRootKey(t.Context(), key))
	exported, err = a.ExportRootKey(t.Context(), "root-2", []byte("a passphrase"))
	must(t, err)
	key, err = ca.ParseKey(exported, []byte("a passphrase"))
	must(t, err)
	must(t, a.RemoveRootKey(t.Context(), key))
	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root"}), postern.Unavailable, "key of the root root-2")
	must(t, a.RestoreRootKey(t.Context(), key))
	must(t, a.Retire(t.Context(), ca.RetireRequest{ID: "root"}))
}

// TestAnSSHCAIsRetired takes one out of what hosts and clients trust.
func TestAnSSHCAIsRetired(t *testing.T) {
	now := time.Now()
	a, _ := newAuthority(t, ca.Config{Now: func() time.Time { return now }})
	must(t, a.SetPolicies(t.Context(), []ca.Policy{{Profile: ca.ProfileSSHUser, Validity: 90 * day}}))
	key := sshKey(t)
	old, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: key})
	must(t, err)
	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "ssh-user"}), postern.Conflict,
		"nothing would issue in the place of ssh-user")
	_, signs, err := a.NewSSHCA(t.Context(), ca.SSHUser)
	must(t, err)
	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "ssh-user"}), postern.Conflict,
		"ssh-user-2 issues in the place of ssh-user only from "+signs.UTC().Format(time.DateOnly))
	now = signs
	wantCode(t, a.Retire(t.Context(), ca.RetireRequest{ID: "ssh-user"}), postern.Conflict, "1 certificates")
	must(t, a.Retire(t.Context(), ca.RetireRequest{ID: "ssh-user", Revoke: true}))
	accepted(t, trustedBy(t, a), old, now, false)
	fresh, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: sshKey(t)})
	must(t, err)
	accepted(t, trustedBy(t, a), fresh, now, true)

	// A host that still trusts the retired CA learns from the list that its key is revoked.
	krl, err := a.KRL(t.Context())
	must(t, err)
	list := write(t, "krl", krl)
	forged := forge(t, old)
	for name, c := range map[string]struct {
		line    []byte
		revoked bool
	}{
		"the old certificate": {old.Line(), true}, "a new one of the retired CA": {forged, true},
		"a present one": {fresh.Line(), false},
	} {
		out, err := exec.Command("ssh-keygen", "-Qf", list, write(t, "cert.pub", c.line)).CombinedOutput()
		if (err != nil) != c.revoked {
			t.Errorf("%s: revoked %v, want %v\n%s", name, err != nil, c.revoked, out)
		}
	}
}

// forge returns a certificate that names the CA of another, and that was never recorded.
func forge(t *testing.T, of *ca.SSHIssued) []byte {
	t.Helper()
	c := *of.Cert
	c.Serial, c.KeyId, c.Key = 1<<40, "mallory", sshKey(t)
	return ssh.MarshalAuthorizedKey(&c)
}
