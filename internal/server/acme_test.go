package server

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestACMEClients checks that common clients get a certificate, renew it and revoke the
// new one, and that the store records all of it.
func TestACMEClients(t *testing.T) {
	rig := newACMERig(t)
	for i, c := range []struct {
		name string
		run  func(*acmeSite) (first, second string) // the second is revoked
	}{
		{"certbot", certbot},
		{"lego", lego},
		{"lego by TLS", legoTLS},
		{"dehydrated", dehydrated},
		{"uacme", uacme},
		{"Caddy", caddy},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := rig.site(t, 11+i)
			first, second := c.run(s)
			if first == second {
				t.Error("the renewed certificate is the old one")
			}
			s.knows(map[string]bool{first: false, second: true})
		})
	}
}

func certbot(s *acmeSite) (first, second string) {
	common := []string{
		"--non-interactive", "--config-dir", s.dir, "--work-dir", s.dir, "--logs-dir", s.dir, "--server",
		s.rig.directory,
	}
	prove := []string{"--standalone", "--http-01-address", s.addr, "--http-01-port", s.httpPort()}
	file := s.path("live/" + s.name + "/fullchain.pem")
	s.run("certbot", append(append([]string{
		"certonly", "--agree-tos", "--email", "alice@example.com", "--no-eff-email", "--eab-kid", s.kid,
		"--eab-hmac-key", s.hmac, "-d", s.name,
	}, prove...), common...)...)
	first = s.holds(file)
	s.run("certbot", append([]string{"renew", "--force-renewal", "--no-random-sleep-on-renew"}, common...)...)
	second = s.holds(file)
	s.run("certbot", append([]string{
		"revoke", "--cert-path", file, "--reason", "superseded",
		"--no-delete-after-revoke",
	}, common...)...)
	return first, second
}

func lego(s *acmeSite) (first, second string) {
	return s.lego("--http", "--http.port", s.addr+":"+s.httpPort())
}

func legoTLS(s *acmeSite) (first, second string) {
	return s.lego("--tls", "--tls.port", fmt.Sprintf("%s:%d", s.addr, s.rig.look.TLSPort))
}

func (s *acmeSite) lego(prove ...string) (first, second string) {
	common := append([]string{
		"--server", s.rig.directory, "--accept-tos", "--email", "alice@example.com", "--path", s.dir, "--domains",
		s.name,
		"--eab", "--kid", s.kid, "--hmac", s.hmac,
	}, prove...)
	file := s.path("certificates/" + s.name + ".crt")
	s.run("lego", append(common, "run")...)
	first = s.holds(file)
	s.run("lego", append(common, "renew", "--days", "10000", "--no-random-sleep")...)
	second = s.holds(file)
	s.run("lego", append(common, "revoke", "--reason", "4", "--keep")...)
	return first, second
}

func dehydrated(s *acmeSite) (first, second string) {
	config := s.path("config")
	writeFile(s.t, config, fmt.Sprintf(`CA=%q
BASEDIR=%q
WELLKNOWN=%q
EAB_KID=%q
EAB_HMAC_KEY=%q
CONTACT_EMAIL=alice@example.com
KEY_ALGO=prime256v1
`, s.rig.directory, s.dir, s.webroot(), s.kid, s.hmac))
	file := s.path("certs/" + s.name + "/fullchain.pem")
	s.run("dehydrated", "--config", config, "--register", "--accept-terms")
	s.run("dehydrated", "--config", config, "--cron", "--domain", s.name)
	first = s.holds(file)
	s.run("dehydrated", "--config", config, "--cron", "--force", "--domain", s.name)
	second = s.holds(file)
	real, err := filepath.EvalSymlinks(s.path("certs/" + s.name + "/cert.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.run("dehydrated", "--config", config, "--revoke", real)
	return first, second
}

// uacme trusts what the system trusts and nothing else: it gets a mount
// namespace in which that is our root.
func uacme(s *acmeSite) (first, second string) {
	posterntest.NeedRoot(s.t)
	const bundle = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(bundle); err != nil {
		posterntest.Missing(s.t, "needs %s", bundle)
	}
	s.env = append(s.env, "UACME_CHALLENGE_PATH="+s.webroot())
	run := func(args ...string) {
		s.t.Helper()
		script := `mount --bind "$0" ` + bundle + ` && exec "$@"`
		s.run("unshare", append([]string{
			"--mount", "sh", "-c", script, s.rig.root, posterntest.Need(s.t, "uacme"), "--acme-url", s.rig.directory,
			"--confdir", s.dir, "--type", "EC",
			"--no-ocsp", "--hook", "/usr/share/uacme/uacme.sh",
		}, args...)...)
	}
	file := s.path(s.name + "/cert.pem")
	run("--yes", "--eab", s.kid+":"+s.hmac, "new", "alice@example.com")
	run("issue", s.name)
	first = s.holds(file)
	run("--force", "issue", s.name)
	second = s.holds(file)
	run("revoke", file)
	return first, second
}
