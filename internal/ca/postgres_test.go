package ca_test

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestPostgreSQLLayout has PostgreSQL serve with the exported files and lines,
// the two that are comments switched on, and psql sign in with a person's
// exported files where it looks for them.
func TestPostgreSQLLayout(t *testing.T) {
	psql := posterntest.Need(t, "psql")
	a, db := newAuthority(t, ca.Config{Domains: []string{"example.com", "localhost"}})
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "eve", Email: "eve@example.com"}))
	issue := func(a *ca.Authority, person string) *ca.Issued {
		out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: person})
		must(t, err)
		return out
	}
	foreign, _ := newAuthority(t, ca.Config{})
	dan, eve, otherDan, bad := issue(a, "dan"), issue(a, "eve"), issue(foreign, "dan"), issue(a, "dan")
	must(t, a.Revoke(t.Context(), bad.Serial, postern.KeyCompromise, postern.Actor{}))
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}})
	must(t, err)

	pg := posterntest.StartPostgreSQL(t)
	pg.Exec(pg.URL("postgres"), "CREATE ROLE dan LOGIN; CREATE ROLE localhost LOGIN")
	port := servePostgreSQL(t, pg, a, server)

	for _, c := range []struct {
		who, role string
		client    *ca.Issued
		root      *ca.Authority // whom psql trusts
		says      string        // why the connection is refused
	}{
		{"dan", "dan", dan, a, ""},
		{"eve as dan", "dan", eve, a, "certificate authentication failed"},
		{"no certificate", "dan", nil, a, "valid client certificate"},
		{"dan, revoked", "dan", bad, a, "revoked"},
		{"dan of another CA", "dan", otherDan, a, "unknown ca"},
		{"a server", "localhost", server, a, "unsupported certificate"},
		{"dan, who trusts another CA", "dan", dan, foreign, "certificate verify failed"},
	} {
		home := psqlHome(t, c.client, c.root)
		cmd := exec.CommandContext(t.Context(), psql, "-XAtc",
			"SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
			fmt.Sprintf("host=localhost port=%d user=%s dbname=postgres sslmode=verify-full", port, c.role))
		cmd.Env = []string{"HOME=" + home, "LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if c.says == "" && (err != nil || string(out) != c.role+"|t\n") {
			t.Errorf("%s: %v %s", c.who, err, out)
		}
		if c.says != "" && (err == nil || !strings.Contains(string(out), c.says)) {
			t.Errorf("%s: %v, want %q in %s", c.who, err, c.says, out)
		}
	}
}

// servePostgreSQL puts a server's exported files into PostgreSQL, with the lists
// of the revoked and the line of pg_hba.conf that the snippet names.
func servePostgreSQL(t *testing.T, pg *posterntest.PostgreSQL, a *ca.Authority, server *ca.Issued) (port int) {
	t.Helper()
	dir := filepath.Join(pg.Dir(), "tls")
	files, err := ca.Bundle{Issued: server, Key: server.Key, Dir: dir}.Files(ca.LayoutPostgreSQL)
	must(t, err)
	must(t, ca.WriteFiles(dir, files, false))
	var lists []byte
	for _, issuer := range []string{"root", "client"} {
		crl, err := a.CRL(t.Context(), issuer)
		must(t, err)
		lists = append(lists, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER})...)
	}
	must(t, os.WriteFile(filepath.Join(dir, "crls.pem"), lists, 0o644))
	conf := string(files[len(files)-1].Data)
	hba := "hostssl all all all cert"
	if !strings.Contains(conf, "#   "+hba+"\n") || !strings.Contains(conf,
		"#ssl_crl_file = '/etc/ssl/postern-crls.pem'") {
		t.Fatalf("the snippet:\n%s", conf)
	}
	conf = strings.Replace(conf, "#ssl_crl_file = '/etc/ssl/postern-crls.pem'",
		"ssl_crl_file = '"+filepath.Join(dir, "crls.pem")+"'", 1)
	return pg.ServeTLS(dir, conf, hba)
}

// psqlHome makes a home in which psql finds a person's exported files. It trusts
// the authority root.
func psqlHome(t *testing.T, client *ca.Issued, root *ca.Authority) string {
	t.Helper()
	home := t.TempDir()
	dir := filepath.Join(home, ".postgresql")
	must(t, os.Mkdir(dir, 0o700))
	if client != nil {
		files, err := ca.Bundle{Issued: client, Key: client.Key, Dir: dir}.Files(ca.LayoutPostgreSQL)
		must(t, err)
		must(t, ca.WriteFiles(dir, files, false))
		for from, to := range map[string]string{"server.crt": "postgresql.crt", "server.key": "postgresql.key"} {
			if client.Profile == ca.ProfileServer {
				must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
			}
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "root.crt"), ca.EncodeCertificates(root.Root()), 0o644))
	return home
}
