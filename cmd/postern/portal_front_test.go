package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestPortalBehindTheFrontDoor runs the whole server: a person is added on the
// command line, enrols with the link that it sent, and comes in with the
// certificate, until suspended or recovered there, which counts within a second.
func TestPortalBehindTheFrontDoor(t *testing.T) {
	mailbox := posterntest.NewMailbox(t)
	https, plain := posterntest.FreePort(t), posterntest.FreePort(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n\thttp_port %d\n\thttps_port %d\n\tadmin off\n\tpostern {\n\t\tmail %s\n\t\tportal https://id.localhost:%[2]d {\n\t\t\tname Example\n\t\t}\n\t}\n}\n",
		plain, https, mailbox.URL)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stateDir := filepath.Join(dir, "state")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "postern") // the test's program is postern under that name
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	posterntest.Serve(t, https, program, "run", "--state", stateDir, "--config", conf)
	cli := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"--state", stateDir}, args...), strings.NewReader(""), &out, &errs); code != 0 {
			t.Fatalf("postern %v: %d %s", args, code, &errs)
		}
		return out.String()
	}
	if said := cli("user", "add", "dan", "--email", "dan@example.com"); !strings.Contains(said, "a link is on its way to dan@example.com") {
		t.Errorf("user add says %q", said)
	}
	rig := &portalRig{url: fmt.Sprintf("https://id.localhost:%d", https), roots: x509.NewCertPool()}
	rig.roots.AddCert(rootOf(t, stateDir))
	code := codeIn(t, mailbox.Take(t, "dan@example.com"))
	dan, page := rig.local(rig.stranger(t)).enrol(code, "laptop")
	page.says(t, 200, "Your recovery codes")
	rig.local(dan)
	dan.get("/").says(t, 200, "Hello dan")
	dan.get("/certificates").says(t, 200, "this device")
	dan.get("/admin").says(t, 403, "for administrators")

	cli("ca", "issue", "--client", "dan", "--label", "spare", "--layout", "pem", "--out", t.TempDir())
	mailbox.TakeAbout(t, "dan@example.com", "on the server itself: The certificate")

	cli("user", "suspend", "dan")
	dan.until("/certificates", 403)
	dan.get("/").says(t, 403, "an administrator has suspended you")
	cli("user", "resume", "dan")
	dan.until("/certificates", 200)
	cli("user", "set", "dan", "--add-group", "admin")
	dan.until("/admin", 200)
	cli("user", "set", "dan", "--drop-group", "admin", "--email", "dan@example.org")
	dan.until("/admin", 403)
	if m := mailbox.TakeAbout(t, "dan@example.com", "was changed"); !strings.Contains(m.Text, "dan@example.com changed to dan@example.org, left the group admin.") {
		t.Errorf("the old address was told:\n%s", m.Text)
	}
	if said := cli("user", "recover", "dan"); !strings.Contains(said, "off: certificate of the device laptop") {
		t.Errorf("user recover says %q", said)
	}
	dan.until("/certificates", 403)
	again, _ := rig.local(rig.stranger(t)).enrol(codeIn(t, mailbox.TakeAbout(t, "dan@example.org", "/enrol#")), "new laptop")
	rig.local(again)
	again.get("/events").says(t, 200, "the command line")
}

// local makes a visitor find the portal's name on this machine.
func (rig *portalRig) local(v *visitor) *visitor {
	v.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
	}
	return v
}

// until asks until the answer has the status: the front door learns of a change
// by looking for one.
func (v *visitor) until(path string, status int) {
	v.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		a := v.get(path)
		if a.StatusCode == status {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("%s answers %d, never %d: %s", path, a.StatusCode, status, a.main())
		}
		<-time.After(50 * time.Millisecond)
	}
}

// rootOf reads the root certificate of a state.
func rootOf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	a := &app{state: dir}
	st, err := a.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	return authority.Root()
}
