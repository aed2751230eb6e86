package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestGuardFollowsTheDirectory guards a site for a group of an LDAP directory: who is in it
// passes, and no more once their entry is locked there.
func TestGuardFollowsTheDirectory(t *testing.T) {
	slapd := posterntest.StartSlapd(t)
	slapd.Change(`dn: uid=alice,dc=example,dc=com
changetype: add
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A

dn: cn=Domain Admins,dc=example,dc=com
changetype: add
objectClass: groupOfNames
cn: Domain Admins
member: uid=alice,dc=example,dc=com
`)
	dir, https := t.TempDir(), posterntest.FreePort(t)
	conf, secret := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, []byte("reader\n"), 0o600))
	must(t, os.WriteFile(conf, fmt.Appendf(nil, `{
	http_port %d
	https_port %d
	admin off
	postern {
		directory %s {
			name corp
			ca %s
			base dc=example,dc=com
			bind_dn %s
			password_file %s
			group_suffix @corp
			refresh 5s
		}
		portal https://id.localhost:%d
	}
}
site.localhost {
	tls internal
	require {
		group "domain admins@corp"
	}
	respond passed
}
`, posterntest.FreePort(t), https, slapd.Secure, slapd.CA, slapd.Reader, secret, https), 0o600))
	r := startServer(t, func(o *Options) { o.Config = conf })
	st := r.open()
	r.await(func() bool {
		_, err := st.Store.People().Person(t.Context(), "alice")
		return err == nil
	})
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	must(t, err)
	alice, err := authority.IssueClient(t.Context(), ca.ClientRequest{Person: "alice", Label: "laptop"})
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(authority.Root())
	get := func(host string) (status int, body string) {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host, Certificates: []tls.Certificate{
				{Certificate: [][]byte{alice.Leaf.Raw, alice.Chain[0].Raw}, PrivateKey: alice.Key},
			}},
		}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://127.0.0.1:%d/", https), nil)
		must(t, err)
		req.Host = fmt.Sprintf("%s:%d", host, https)
		resp, err := client.Do(req)
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(page)
	}
	answers := func(want int) func() bool {
		return func() bool { status, _ := get("site.localhost"); return status == want }
	}
	r.await(answers(200))
	slapd.Change("dn: uid=alice,dc=example,dc=com\nchangetype: modify\nreplace: pwdAccountLockedTime\n" +
		"pwdAccountLockedTime: 000001010000Z\n")
	r.await(answers(403))
	const why = "the directory corp has suspended you"
	if status, page := get("id.localhost"); status != 403 || !strings.Contains(page, why) {
		t.Errorf("the portal answers %d %s", status, page)
	}
	if p, err := st.Store.People().Person(t.Context(), "alice"); err != nil || p.Status != postern.PersonSuspended {
		t.Errorf("%+v, %v", p, err)
	}
	if strings.Contains(strings.ReplaceAll(r.out.String(), slapd.Reader, ""), "reader") {
		t.Errorf("the password was logged:\n%s", r.out)
	}
}
