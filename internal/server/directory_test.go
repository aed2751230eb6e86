package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	}
}
site.localhost {
	tls internal
	require {
		group "domain admins@corp"
	}
	respond passed
}
`, posterntest.FreePort(t), https, slapd.Secure, slapd.CA, slapd.Reader, secret), 0o600))
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
	status := func() int {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "site.localhost", Certificates: []tls.Certificate{
				{Certificate: [][]byte{alice.Leaf.Raw, alice.Chain[0].Raw}, PrivateKey: alice.Key},
			}},
		}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://127.0.0.1:%d/", https), nil)
		must(t, err)
		req.Host = fmt.Sprintf("site.localhost:%d", https)
		resp, err := client.Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	r.await(func() bool { return status() == 200 })
	slapd.Change("dn: uid=alice,dc=example,dc=com\nchangetype: modify\nreplace: pwdAccountLockedTime\n" +
		"pwdAccountLockedTime: 000001010000Z\n")
	r.await(func() bool { return status() == 403 })
	if p, err := st.Store.People().Person(t.Context(), "alice"); err != nil || p.Status != postern.PersonSuspended {
		t.Errorf("%+v, %v", p, err)
	}
	if strings.Contains(strings.ReplaceAll(r.out.String(), slapd.Reader, ""), "reader") {
		t.Errorf("the password was logged:\n%s", r.out)
	}
}
