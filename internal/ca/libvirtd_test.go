package ca_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestLibvirtdLayout has libvirtd serve with the exported files, without and with
// the list of names that their README shows, and virsh connects with a person's.
// The keys are RSA, as postern ca issue makes them for this layout: libvirt 9.0
// insists on the key usage that is for such keys alone.
func TestLibvirtdLayout(t *testing.T) {
	defer posterntest.TraceAlone(t)() // its clients would be seen
	a, db := newAuthority(t, ca.Config{Name: "Example Org"})
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "eve", Email: "eve@example.com"}))
	foreign, _ := newAuthority(t, ca.Config{Name: "Example Org"})
	key, err := ca.GenerateKey(ca.RSA3072)
	must(t, err)
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}, Key: key.Public()})
	must(t, err)
	server.Key = key
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	dir, files := exported(t, server, ca.LayoutLibvirt)
	allowed := allowedDN(t, string(files[len(files)-1].Data))
	confFile := filepath.Join(l.Dir, "conf/libvirtd.conf")
	conf, err := os.ReadFile(confFile)
	must(t, err)
	text := strings.NewReplacer(
		filepath.Join(l.Dir, "pki/serverkey.pem"), filepath.Join(dir, "libvirt/private/serverkey.pem"),
		filepath.Join(l.Dir, "pki/servercert.pem"), filepath.Join(dir, "libvirt/servercert.pem"),
		filepath.Join(l.Dir, "pki/cacert.pem"), filepath.Join(dir, "CA/cacert.pem")).Replace(string(conf))
	if strings.Contains(string(files[len(files)-1].Data), "not RSA") {
		t.Error("the README warns of an RSA key")
	}
	restart := func(more string) {
		t.Helper()
		l.Kill()
		must(t, os.WriteFile(confFile, []byte(text+more+"\n"), 0o600))
		must(t, l.Start())
	}

	person := func(a *ca.Authority, name string) *ca.Issued {
		key, err := ca.GenerateKey(ca.RSA3072)
		must(t, err)
		out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: name, Key: key.Public()})
		must(t, err)
		out.Key = key
		return out
	}
	visitors := []struct {
		who           string
		client        *ca.Issued
		open, guarded bool // whether they can connect without the list, and with it
	}{
		{"dan", person(a, "dan"), true, true},
		{"eve", person(a, "eve"), true, false},
		{"a server", server, true, false},
		{"dan of another CA", person(foreign, "dan"), false, false},
	}
	for _, list := range []string{"", allowed} {
		restart(list)
		for _, v := range visitors {
			out, err := virsh(t, l, a, v.client)
			if want := list == "" && v.open ||
				list != "" && v.guarded; (err == nil && strings.Contains(out, "vm1")) != want {
				t.Errorf("%s, with the list %q: %v %s", v.who, list, err, out)
			}
		}
	}
}

// allowedDN returns the line for libvirtd.conf that a README shows.
func allowedDN(t *testing.T, readme string) string {
	t.Helper()
	for line := range strings.Lines(readme) {
		if line = strings.TrimLeft(line, "# "); strings.HasPrefix(line, "tls_allowed_dn_list") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("no list of names in\n%s", readme)
	return ""
}

// virsh lists the machines as a client that shows a certificate, with the files
// of its layout in one directory, and trusts the authority.
func virsh(t *testing.T, l *posterntest.Libvirtd, a *ca.Authority, client *ca.Issued) (string, error) {
	t.Helper()
	files, err := ca.Bundle{Issued: client, Key: client.Key}.Files(ca.LayoutLibvirt)
	must(t, err)
	dir := t.TempDir()
	for _, f := range files {
		name := strings.Replace(filepath.Base(f.Name), "server", "client", 1)
		must(t, os.WriteFile(filepath.Join(dir, name), f.Data, 0o600))
	}
	if !client.Roots[0].Equal(a.Root()) { // then the server would not be trusted
		trusted := ca.EncodeCertificates(append([]*x509.Certificate{a.Root()}, a.Intermediates(ca.Server)...)...)
		must(t, os.WriteFile(filepath.Join(dir, "cacert.pem"), trusted, 0o600))
	}
	return posterntest.VirshAt(fmt.Sprintf("qemu+tls://localhost:%d/system?pkipath=%s", l.TLSPort, dir), "list",
		"--all", "--name")
}
