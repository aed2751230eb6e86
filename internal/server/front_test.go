package server

import (
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

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestPortalBehindTheFrontDoor runs the whole server. A person who is added by commands
// enrols with the link from the mail and signs in with the certificate, until they are
// suspended or recovered, which takes effect within a second.
func TestPortalBehindTheFrontDoor(t *testing.T) {
	mailbox := posterntest.NewMailbox(t)
	https, plain := posterntest.FreePort(t), posterntest.FreePort(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n\thttp_port %d\n\thttps_port %d\n\tadmin off\n\tpostern {\n\t\tmail %s\n"+
		"\t\tportal https://id.localhost:%[2]d {\n\t\t\tname Example\n\t\t}\n\t}\n}\n",
		plain, https, mailbox.URL)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startServer(t, func(o *Options) { o.Config = conf })
	st := r.open()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	must(t, err)
	r.awaitSite(https, "id.localhost", authority.Root())
	commands := people.Directory{DB: st.Store, Authority: authority}
	must(t, commands.Add(t.Context(), postern.Person{Name: "dan", Email: "dan@example.com"}))
	if made, err := commands.Invite(t.Context(), "dan"); err != nil || !made.Sent || made.Email != "dan@example.com" {
		t.Errorf("invited: %+v, %v", made, err)
	}
	status := func(s postern.PersonStatus) {
		t.Helper()
		if changed, err := commands.SetStatus(t.Context(), "dan", s); !changed || err != nil {
			t.Errorf("%s: %v, %v", s, changed, err)
		}
	}
	change := func(c people.Change) {
		t.Helper()
		_, err := commands.Change(t.Context(), "dan", c)
		must(t, err)
	}
	rig := &portalRig{url: fmt.Sprintf("https://id.localhost:%d", https), roots: x509.NewCertPool()}
	rig.roots.AddCert(authority.Root())
	code := codeIn(t, mailbox.Take(t, "dan@example.com"))
	dan, page := rig.local(rig.newVisitor(t)).enrol(code, "laptop")
	page.says(t, 200, "Your recovery codes")
	rig.local(dan)
	dan.get("/").says(t, 200, "Hello dan")
	dan.get("/certificates").says(t, 200, "this device")
	dan.get("/admin").says(t, 403, "for administrators")

	_, err = authority.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Label: "spare"})
	must(t, err)
	mailbox.TakeAbout(t, "dan@example.com", "on the server itself: The certificate")

	status(postern.PersonSuspended)
	dan.until("/certificates", 403)
	dan.get("/").says(t, 403, "an administrator has suspended you")
	status(postern.PersonActive)
	dan.until("/certificates", 200)
	must(t, commands.Add(t.Context(), postern.Person{Name: "boss", Groups: []string{"admin"}}))
	change(people.Change{Add: []string{"admin"}})
	dan.until("/admin", 200)
	rig.db = st.Store
	s := dan.watches("machine=vm3", rig.logSize(t))
	rig.happens(t, ran("vm3"))
	s.sees(1)
	elsewhere := "dan@example.org"
	change(people.Change{Drop: []string{"admin"}, Email: &elsewhere})
	dan.until("/admin", 403)
	s.ends()
	if m := mailbox.TakeAbout(t, "dan@example.com", "was changed"); !strings.Contains(m.Text,
		"dan@example.com changed to dan@example.org, left the group admin.") {
		t.Errorf("the message to the old address is:\n%s", m.Text)
	}
	_, off, err := commands.Recover(t.Context(), "dan", false)
	if said := strings.Join(off.Words(), "\n"); err != nil ||
		!strings.Contains(said, "certificate of the device laptop") {
		t.Errorf("recovered: %q, %v", said, err)
	}
	dan.until("/certificates", 403)
	again, _ := rig.local(rig.newVisitor(t)).enrol(codeIn(t, mailbox.TakeAbout(t, "dan@example.org", "/enrol#")),
		"new laptop")
	rig.local(again)
	again.get("/events").says(t, 200, "the command line")
}

// local makes a visitor resolve the portal's name to this host.
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

// until repeats a request until the answer has the status: the HTTPS server polls for
// changes.
func (v *visitor) until(path string, status int) {
	v.t.Helper()
	deadline := time.Now().Add(patience)
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
