package front

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/postern-project/postern"
)

// TestTheTimeline sends many requests that are refused, and one that passes: refusals
// that are alike are one entry with a count.
func TestTheTimeline(t *testing.T) {
	h := newRig(t)
	https, _ := h.serve(t, "localhost:HTTPS {\n\trequire /x* {\n\t\tperson alice\n\t}\n\trespond ok\n}\n")
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	ask := func(who *holder, target string) {
		t.Helper()
		if _, err := h.try(https, attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
			target: target, who: who,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		ask(nil, "/x")
		ask(bob, "/x")
		ask(nil, "/a%00")
		ask(nil, "/public")
	}
	live := dialLive(t, h, https, "1.1", alice)
	for range 3 {
		live("/x")
	}
	h.flush(t)
	got := make(map[string]int64)
	for _, e := range h.events {
		got[fmt.Sprintf("%s %s %s %s", e.Kind, e.Person, e.Reason, e.Object)] += max(e.Count, 1)
		if e.Kind == postern.EventSignedIn && (len(e.Links) != 1 ||
			e.Links[0].ID != alice.cert.SerialNumber.Text(16) || e.Address != "127.0.0.1") {
			t.Errorf("requestState: %+v", e)
		}
	}
	for event, count := range map[string]int64{
		"gate.refused  none-shown /x*": 5, "gate.refused bob not-the-person /x*": 5,
		"gate.refused  ambiguous-path ": 5,
		"gate.passed alice  /x*":        1, "config.loaded   Caddyfile": 1,
	} {
		if got[event] != count {
			t.Errorf("%s: %d, want %d; all: %v", event, got[event], count, got)
		}
	}
}

// flush writes what waits to be written.
func (h *rig) flush(t *testing.T) {
	t.Helper()
	if err := current().events.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTheAccessLogNamesPersonAndSerial reads the log of a visit.
func TestTheAccessLogNamesPersonAndSerial(t *testing.T) {
	h := newRig(t)
	https, _ := h.serve(t,
		"localhost:HTTPS {\n\tlog {\n\t\toutput file DIR/access.log\n\t}\n\trequire /x* {\n\t\tperson alice\n\t}\n"+
			"\theader X-User {http.auth.user.id}\n\trespond ok\n}\n")
	alice := h.person(t, "alice")
	got, err := h.try(https, attempt{
		proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
		target: "/x", who: alice,
	})
	if err != nil || got.header.Get("X-User") != "alice" {
		t.Errorf("%+v %v", got, err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(h.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	var line struct {
		Person string `json:"person"`
		Serial string `json:"serial"`
		User   string `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(string(data))), &line); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if line.Person != "alice" || line.User != "alice" || line.Serial != alice.cert.SerialNumber.Text(16) {
		t.Errorf("%s", data)
	}
}

// TestOnlyGuardedSitesAsk looks at handshakes: who is asked for a certificate,
// and of which CAs.
func TestOnlyGuardedSitesAsk(t *testing.T) {
	other := issue(t, nil, authority("Other CA"))
	h := newRig(t)
	h.file(t, "other.pem", string(other.pem()))
	https, _ := h.serve(t, `
localhost:HTTPS {
	require /x*
	respond ok
}
other.localhost:HTTPS {
	require /x* {
		trust DIR/other.pem
	}
	respond ok
}
both.localhost:HTTPS {
	require /x* {
		trust DIR/other.pem postern
	}
	respond ok
}
open.localhost:HTTPS {
	respond ok
}
anyone.localhost:HTTPS {
	require /x* {
		anyone
		rule `+"`address.within(\"127.0.0.0/8\")`"+`
	}
	respond ok
}
*.w.localhost:HTTPS {
	require /x*
	respond ok
}
quiet.w.localhost:HTTPS {
	respond ok
}
services.localhost:HTTPS {
	postern_services
}
`)
	for sni, want := range map[string]string{
		"localhost": "Test Client CA", "other.localhost": "Other CA", "both.localhost": "Other CA,Test Client CA",
		"open.localhost":   "not asked",
		"anyone.localhost": "not asked", "x.w.localhost": "Test Client CA", "quiet.w.localhost": "not asked",
		"services.localhost": "Test Client CA",
		"":                   "Other CA,Test Client CA",
	} {
		asked := "not asked"
		config := &tls.Config{
			ServerName: sni, InsecureSkipVerify: true,
			GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = hinted(r)
				return new(tls.Certificate), nil
			},
		}
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", https), config)
		if err != nil {
			t.Errorf("%s: %v", sni, err)
			continue
		}
		c.Close()
		if asked != want {
			t.Errorf("%q: %s, want %s", sni, asked, want)
		}
	}
	got, err := h.try(https, attempt{
		proto: "1.1", version: tls.VersionTLS13, sni: "anyone.localhost",
		host: "anyone.localhost", target: "/x",
	})
	if err != nil || got.status != 200 {
		t.Errorf("anyone: %+v %v", got, err)
	}
}

// hinted lists the CAs that a server hints.
func hinted(r *tls.CertificateRequestInfo) string {
	var names []string
	for _, raw := range r.AcceptableCAs {
		for _, name := range []string{"Other CA", "Test Client CA", "Test Root", "Test Server CA"} {
			if strings.Contains(string(raw), name) {
				names = append(names, name)
			}
		}
	}
	if names == nil {
		return "asked, without hints"
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ",")
}
