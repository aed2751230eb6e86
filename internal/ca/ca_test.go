package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// newAuthority returns an authority over a fresh store with a person dan.
func newAuthority(t testing.TB, cfg ca.Config) (*ca.Authority, *store.DB) {
	t.Helper()
	db := storetest.Open(t)
	must(t, db.People().AddPerson(t.Context(), postern.Person{
		Name: "dan", Email: "dan@example.com",
		Groups: []string{"ops"},
	}))
	a, err := ca.Init(t.Context(), cfg, db.CA())
	must(t, err)
	return a, db
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode fails unless err is of that code and its message holds the words.
func wantCode(t *testing.T, err error, code postern.Code, words string) {
	t.Helper()
	if err == nil || postern.CodeOf(err) != code || !strings.Contains(err.Error(), words) {
		t.Errorf("got error %v (%v), want %v with %q", err, postern.CodeOf(err), code, words)
	}
}

// write puts data into a file of the test's own directory and returns its path.
func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, data, 0o600))
	return path
}

// runs runs a program and returns what it printed; it fails if the program does.
func runs(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// csr returns a request in PEM for a new P-256 key.
func csr(t testing.TB, tmpl x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func roots(a *ca.Authority) (roots, intermediates *x509.CertPool) {
	roots, intermediates = x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Root())
	for _, role := range []ca.Role{ca.Server, ca.Client} {
		for _, c := range a.Intermediates(role) {
			intermediates.AddCert(c)
		}
	}
	return roots, intermediates
}

func TestInitNeverOverwrites(t *testing.T) {
	a, db := newAuthority(t, ca.Config{Name: "Example"})
	_, err := ca.Init(t.Context(), ca.Config{Name: "Other"}, db.CA())
	wantCode(t, err, postern.Conflict, "already")
	again, err := ca.Open(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	if !again.Root().Equal(a.Root()) || again.Name() != "Example" {
		t.Errorf("the root changed to %s", again.Root().Subject)
	}
	if got := len(again.Issuers()); got != 5 {
		t.Errorf("%d CAs, want 5", got)
	}
}

func TestOpenWithoutInit(t *testing.T) {
	_, err := ca.Open(t.Context(), ca.Config{}, storetest.Open(t).CA())
	wantCode(t, err, postern.NotFound, "no certificate authority")
}

func TestServerCertificate(t *testing.T) {
	a, db := newAuthority(t, ca.Config{URL: "http://pki.example.com/x"})
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{
		"WWW.Example.com.", "*.example.com",
		"bücher.example", "192.0.2.1", "2001:db8::1", "localhost",
	}})
	must(t, err)
	want := "www.example.com *.example.com xn--bcher-kva.example localhost"
	if got := strings.Join(out.Leaf.DNSNames, " "); got != want {
		t.Errorf("names %q, want %q", got, want)
	}
	if out.Leaf.Subject.CommonName != "www.example.com" || len(out.Leaf.IPAddresses) != 2 {
		t.Errorf("CN %q, addresses %v", out.Leaf.Subject.CommonName, out.Leaf.IPAddresses)
	}
	if got := out.Leaf.OCSPServer; len(got) != 1 || got[0] != "http://pki.example.com/x/ocsp" {
		t.Errorf("OCSP %v", got)
	}
	r, i := roots(a)
	if _, err := out.Leaf.Verify(x509.VerifyOptions{
		Roots: r, Intermediates: i,
		DNSName: "a.example.com",
	}); err != nil {
		t.Error(err)
	}
	if _, err := out.Leaf.Verify(x509.VerifyOptions{
		Roots: r, Intermediates: i,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err == nil {
		t.Error("a server certificate verifies as a client's")
	}
	kept, err := db.CA().Certificate(t.Context(), out.Serial)
	must(t, err)
	if string(kept.DER) != string(out.Leaf.Raw) || kept.Status(out.Issued) != "valid" {
		t.Errorf("the store holds %+v", kept)
	}
}

func TestServerNames(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	for _, c := range []struct{ name, words string }{
		{"https://www.example.com/", "not a DNS name"},
		{"www.example.com:443", "not a DNS name"},
		{"dan@example.com", "not a DNS name"},
		{"*", "not a DNS name"},
		{"*.com", "too wide"},
		{"a.*.example.com", "not a DNS name"},
		{"w*.example.com", "not a DNS name"},
		{"a..example.com", "not a DNS name"},
		{"-a.example.com", "not a DNS name"},
		{"a b.example.com", "not a DNS name"},
		{"1.2.3", "not a DNS name"},
		{"0.0.0.0", "cannot be the address"},
		{"fe80::1%eth0", "cannot be the address"},
		{strings.Repeat("a", 64) + ".example.com", "not a DNS name"},
		{"", "not a DNS name"},
	} {
		_, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{c.name}})
		wantCode(t, err, postern.Invalid, c.words)
	}
	_, err := a.IssueServer(t.Context(), ca.ServerRequest{})
	wantCode(t, err, postern.Invalid, "at least one name")
}

func TestClientCertificate(t *testing.T) {
	a, db := newAuthority(t, ca.Config{Name: "Example Org"})
	out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Label: "laptop", Units: []string{"audit"}})
	must(t, err)
	want := "O=Example Org, OU=audit, CN=dan, emailAddress=dan@example.com, dnQualifier=5eec0dc4"
	if out.Subject != want {
		t.Errorf("subject %q, want %q", out.Subject, want)
	}
	if len(out.Leaf.EmailAddresses) != 1 || out.Leaf.EmailAddresses[0] != "dan@example.com" {
		t.Errorf("e-mail addresses %v", out.Leaf.EmailAddresses)
	}
	r, i := roots(a)
	if _, err := out.Leaf.Verify(x509.VerifyOptions{
		Roots: r, Intermediates: i,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		t.Error(err)
	}
	cred, err := db.People().Credential(t.Context(), postern.X509Certificate, out.Serial)
	must(t, err)
	if cred.Person != "dan" || cred.Label != "laptop" || cred.Status != postern.CredentialActive ||
		!cred.Expires.Equal(out.NotAfter) {
		t.Errorf("credential %+v", cred)
	}
	must(t, a.Revoke(t.Context(), out.Serial, postern.KeyCompromise, postern.Actor{}))
	if cred, _ = db.People().Credential(t.Context(), postern.X509Certificate,
		out.Serial); cred.Status != postern.CredentialRevoked {
		t.Errorf("after the revocation the credential is %s", cred.Status)
	}
	wantCode(t, a.Revoke(t.Context(), out.Serial, postern.KeyCompromise, postern.Actor{}), postern.Conflict, "already")
	_, err = a.Renew(t.Context(), out.Serial, ca.RenewRequest{})
	wantCode(t, err, postern.Denied, "revoked")
}

func TestNothingForSuspendedPeople(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	must(t, db.People().SetPersonStatus(t.Context(), "dan", postern.PersonSuspended))
	_, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	wantCode(t, err, postern.Denied, "suspended")
	_, err = a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: sshKey(t)})
	wantCode(t, err, postern.Denied, "suspended")
	_, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "nosuch"})
	wantCode(t, err, postern.NotFound, "nosuch")
	// A person who is suspended between the check and the record.
	err = db.CA().AddCertificate(t.Context(), postern.Actor{}, ca.Certificate{
		Serial: "1", Issuer: "client",
		Profile: ca.ProfileClient, Person: "dan", DER: []byte{0},
	}, postern.Event{Kind: postern.EventCertIssued})
	wantCode(t, err, postern.Denied, "suspended")
	if _, err := db.CA().Certificate(t.Context(), "1"); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("the refused certificate is in the store: %v", err)
	}
}

func TestRemovedPersonsCertificatesAreRevoked(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	_, err = a.CRL(t.Context(), "client")
	must(t, err)
	must(t, db.People().SetPersonStatus(t.Context(), "dan", postern.PersonRemoved))
	crl, err := a.CRL(t.Context(), "client")
	must(t, err)
	list, err := x509.ParseRevocationList(crl.DER)
	must(t, err)
	if len(list.RevokedCertificateEntries) != 1 ||
		ca.SerialString(list.RevokedCertificateEntries[0].SerialNumber) != out.Serial {
		t.Errorf("the list holds %v", list.RevokedCertificateEntries)
	}
}

func TestRenew(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	s, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example", "127.0.0.1"}})
	must(t, err)
	s2, err := a.Renew(t.Context(), s.Serial, ca.RenewRequest{SameKey: true})
	must(t, err)
	if s2.Renews != s.Serial || s2.Certificate.Key != s.Certificate.Key ||
		strings.Join(s2.Names, " ") != "a.example 127.0.0.1" || s2.Key != nil {
		t.Errorf("renewed %+v", s2.Certificate)
	}
	c, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Label: "phone", Units: []string{"x"}})
	must(t, err)
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.ChangePerson(ctx, postern.Person{Name: "dan", Email: "new@example.com"})
	}))
	c2, err := a.Renew(t.Context(), c.Serial, ca.RenewRequest{})
	must(t, err)
	if c2.Label != "phone" ||
		c2.Subject != "O=Postern, OU=x, CN=dan, emailAddress=new@example.com, dnQualifier=45569da5" || c2.Key == nil {
		t.Errorf("renewed %+v", c2.Certificate)
	}
}

func TestConstraints(t *testing.T) {
	a, db := newAuthority(t, ca.Config{Domains: []string{"example.com", "192.0.2.0/24", "@example.net"}})
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "eve", Email: "eve@evil.example"}))
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "net", Email: "net@example.net"}))
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "sub", Email: "sub@mail.example.com"}))
	r, i := roots(a)
	for _, names := range [][]string{
		{"example.com", "*.example.com"},
		{"a.b.example.com", "192.0.2.7"},
		{"localhost", "127.0.0.1", "::1"},
	} {
		out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: names})
		must(t, err)
		if _, err := out.Leaf.Verify(x509.VerifyOptions{Roots: r, Intermediates: i}); err != nil {
			t.Errorf("%v: %v", names, err)
		}
	}
	for _, names := range [][]string{
		{"example.org"},
		{"badexample.com"},
		{"com"},
		{"example.com", "192.0.3.1"},
		{"2001:db8::1"},
	} {
		_, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: names})
		wantCode(t, err, postern.Denied, "may not vouch")
		if hint := postern.HintOf(err); !strings.Contains(hint, "example.com, 192.0.2.0/24, @example.net") {
			t.Errorf("hint %q", hint)
		}
	}
	for _, p := range []string{"dan", "net", "sub"} {
		out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: p})
		must(t, err)
		if _, err := out.Leaf.Verify(x509.VerifyOptions{
			Roots: r, Intermediates: i,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	_, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "eve"})
	wantCode(t, err, postern.Denied, "eve@evil.example")
}

func TestCRLIsNewAtOnce(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	b, err := ca.Open(context.Background(), ca.Config{}, db.CA()) // another server
	must(t, err)
	first, err := b.CRL(t.Context(), "server")
	must(t, err)
	if again, err := a.CRL(t.Context(), "server"); err != nil || string(again.DER) != string(first.DER) {
		t.Errorf("the other server has list %d, %v", again.Number, err)
	}
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	must(t, a.Revoke(t.Context(), out.Serial, postern.Superseded, postern.Actor{Person: "dan"}))
	second, err := b.CRL(t.Context(), "server")
	must(t, err)
	list, err := x509.ParseRevocationList(second.DER)
	must(t, err)
	if len(list.RevokedCertificateEntries) != 1 ||
		list.RevokedCertificateEntries[0].ReasonCode != int(postern.Superseded) || second.Number != first.Number+1 ||
		list.Number.Int64() != second.Number {
		t.Errorf("list %d after %d: %+v", second.Number, first.Number, list.RevokedCertificateEntries)
	}
	must(t, list.CheckSignatureFrom(a.Intermediates(ca.Server)[0]))
}

// TestURLOfCertificates chooses where certificates say to ask about revocation,
// beside a server that takes it up.
func TestURLOfCertificates(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	server, err := ca.Open(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	handler := server.Handler(nil)
	for _, c := range []struct {
		name, want string
		change     func() error
		chosen     bool
	}{
		{"nothing is known", "", func() error { return nil }, false},
		{"the portal's", "http://id.example.com", func() error {
			return a.SetPortalURL(t.Context(), "http://id.example.com")
		}, false},
		{"a server without a portal", "http://id.example.com", func() error {
			return a.SetPortalURL(t.Context(), "")
		}, false},
		{"one with a path", "http://www.example.com/pki", func() error {
			return a.SetURL(t.Context(), "http://www.example.com/pki/")
		}, true},
		{"the portal moves", "http://www.example.com/pki", func() error {
			return a.SetPortalURL(t.Context(), "http://id.example.org:8080")
		}, true},
		{"none", "", func() error { return a.SetURL(t.Context(), ca.NoURL) }, true},
		{"the portal's again", "http://id.example.org:8080", func() error {
			return a.SetURL(t.Context(), ca.PortalURL)
		}, false},
	} {
		before, err := db.Generation(t.Context())
		must(t, err)
		must(t, c.change())
		if after, _ := db.Generation(t.Context()); after == before && server.URL() != c.want {
			t.Errorf("%s: the generation that other servers watch has not changed", c.name)
		}
		must(t, server.Reload(t.Context()))
		out, err := server.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
		must(t, err)
		var want []string
		if c.want != "" {
			want = []string{c.want + "/crl/server.crl"}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest("GET", want[0], nil))
			if w.Code != http.StatusOK {
				t.Errorf("%s: %s is answered %d", c.name, want[0], w.Code)
			}
		}
		if server.URL() != c.want || server.URLChosen() != c.chosen ||
			!slices.Equal(out.Leaf.CRLDistributionPoints, want) {
			t.Errorf("%s: %q (chosen: %v), certificates say %v", c.name, server.URL(), server.URLChosen(),
				out.Leaf.CRLDistributionPoints)
		}
	}
	for _, bad := range []string{
		"https://pki.example.com", "pki.example.com", "http://",
		"http://dan:pw@pki.example.com", "http://pki.example.com/?x",
	} {
		wantCode(t, a.SetURL(t.Context(), bad), postern.Invalid, "plain http:// URL")
	}
}
