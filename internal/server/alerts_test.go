package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/alert"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/webhook"
	"github.com/postern-project/postern/timeline"
)

// TestAlertsAreDelivered has a server report a refusal by mail, by a command that fails at
// first, and to a webhook that is unavailable. The server is killed meanwhile.
func TestAlertsAreDelivered(t *testing.T) {
	dir, port := t.TempDir(), posterntest.FreePort(t)
	secret, command, out := filepath.Join(dir, "secret"), filepath.Join(dir, "command"), filepath.Join(dir, "out")
	must(t, os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef\n"), 0o600))
	const failsOnce = "#!/bin/sh\n[ -e \"$1.tried\" ] || { : >\"$1.tried\"; exit 1; }\ncat >\"$1\"\n"
	must(t, os.WriteFile(command, []byte(failsOnce), 0o700))
	mailbox := posterntest.NewMailbox(t)
	m := startMonitored(t, fmt.Sprintf(`		mail %s
		alert refused {
			when `+"`event.kind == \"gate.refused\"`"+`
			every 1h
			mail ops@example.com
			webhook http://127.0.0.1:%d/hook?key=hidden %s
			command %s %s
		}
`, mailbox.URL, port, secret, command, out), "", nil)
	m.await(func() bool { return m.visit("site.localhost", "/") == http.StatusForbidden })
	mail := mailbox.TakeAbout(t, "ops@example.com", "Postern: refused")
	if !strings.Contains(mail.Text, "from 127.0.0.1, was refused /") {
		t.Errorf("the mail says\n%s", mail.Text)
	}
	m.await(func() bool { return m.scrape()["postern_alert_queue"] == "1" }) // the webhook's is left
	if text, err := os.ReadFile(out); err != nil || !strings.Contains(string(text), `"alert":"refused"`) {
		t.Errorf("the command got %s: %v", text, err)
	}
	m.kill()
	<-m.ended
	m.start()
	got := receive(t, port, "0123456789abcdef0123456789abcdef")
	select {
	case e := <-got:
		if e.Kind != postern.EventAccessRefused || e.Address != "127.0.0.1" {
			t.Errorf("the webhook got %+v", e)
		}
	case err := <-m.ended:
		t.Fatal(err, m.out)
	}
	m.await(func() bool { return m.scrape()["postern_alert_queue"] == "0" })
	if strings.Contains(m.out.String(), "hidden") {
		t.Errorf("the log has the webhook's address:\n%s", m.out)
	}
	testAlert(m, got)
}

// receive starts a webhook's receiver, which checks signatures as one that knows only
// Standard Webhooks would.
func receive(t *testing.T, port int, key string) <-chan postern.Event {
	t.Helper()
	got := make(chan postern.Event, 10)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		want := "v1," + webhook.Sign([]byte(key), r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
		var message struct{ Event postern.Event }
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&message); err != nil ||
			r.Header.Get("webhook-signature") != want {
			t.Errorf("%s: %v", body, err)
		}
		got <- message.Event
	})}
	go srv.Serve(l) //nolint:errcheck // it is closed
	t.Cleanup(func() { srv.Close() })
	return got
}

// testAlert sends a test of the alert, and one of an alert that there is not.
func testAlert(m *monitored, got <-chan postern.Event) {
	m.t.Helper()
	var to []string
	err := TestAlert(m.t.Context(), m.open(), "refused", func(e postern.Event) {
		to = append(to, e.Details["to"]+": "+string(e.Outcome))
	})
	if err != nil || len(to) != 3 {
		m.t.Errorf("%q: %v", to, err)
	}
	if e := <-got; e.Kind != postern.EventAlertTest {
		m.t.Errorf("the webhook got %+v", e)
	}
}

// TestReadyAlertsAreDescribed holds what the configuration's reference says of ready-made
// alerts against those that there are.
func TestReadyAlertsAreDescribed(t *testing.T) {
	doc := ""
	for _, b := range front.Blocks() {
		if b.Name == "alert" {
			doc = b.Doc
		}
	}
	for _, a := range alert.Ready {
		if !strings.Contains(doc, a.Name) {
			t.Errorf("%s is not described", a.Name)
		}
	}
}

// TestChecksAreRecordedWhenTheyChange records what is wrong with the disk, again and again,
// and that it is in order.
func TestChecksAreRecordedWhenTheyChange(t *testing.T) {
	r := startServer(t, nil)
	r.stop()
	log := r.open().Store.Timeline()
	long := strings.Repeat("long\n", 1000) // the timeline cuts it
	for _, wrong := range []string{"", "a", "a", "b", "b", "", "", "b", long, long, "a"} {
		must(t, log.AppendChange(t.Context(), checked(postern.EventCheckDisk, "/x", wrong)))
	}
	events, err := log.Events(t.Context(), timeline.Filter{Kind: postern.EventCheckDisk, Object: "/x"})
	must(t, err)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %.1s", e.Outcome, e.Reason))
	}
	if want := []string{"failed a", "failed b", "ok ", "failed b", "failed l", "failed a"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestFindingThatStaysHidesNoOther records audits of which each but the third finds
// something new.
func TestFindingThatStaysHidesNoOther(t *testing.T) {
	r := startServer(t, nil)
	r.stop()
	st := r.open()
	finding := func(id string, s audit.Severity, line int) audit.Finding {
		return audit.Finding{ID: id, Severity: s, Title: "title of " + id, Where: hostconf.Line{File: "f", Line: line}}
	}
	a, b, c := finding("a", audit.Medium, 1), finding("b", audit.Medium, 2), finding("c", audit.Critical, 3)
	for _, found := range [][]audit.Finding{
		{a}, {a, b}, {finding("b", audit.Medium, 7), a}, {c, a, b}, {c, a, b, finding("b", audit.Medium, 8)}, {}, {},
	} {
		must(t, RecordAudit(t.Context(), st, &audit.Report{Findings: found}))
	}
	events, err := st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventCheckSSH})
	must(t, err)
	var got []string
	for _, e := range events {
		got = append(got, e.Reason)
	}
	want := []string{
		"medium: title of a; findings: a", "medium: title of a; findings: a, b",
		"critical: title of c; findings: a, b, c", "critical: title of c; findings: a, b (2 times), c", "",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestServerAuditsWithWhatItKnows asks a server's auditor for the CA of SSH user
// certificates and for codes by time.
func TestServerAuditsWithWhatItKnows(t *testing.T) {
	r := startServer(t, nil)
	r.stop()
	st := r.open()
	authority, _, err := ca.Ensure(t.Context(), ca.Config{}, st.Store.CA())
	must(t, err)
	a := (&server{state: st, authority: authority}).auditor()
	if u, err := a.UserCA(t.Context()); err != nil || len(u.Keys) == 0 {
		t.Errorf("%+v %v", u, err)
	}
	if used, err := a.TimeCodes(t.Context()); err != nil || used {
		t.Error(used, err)
	}
}

// TestServerWithoutItsMarkSaysSo damages the mark of how far the database was.
func TestServerWithoutItsMarkSaysSo(t *testing.T) {
	r := startServer(t, nil)
	r.stop()
	st := r.open()
	c := checks{&server{state: st}, map[[2]string]string{}}
	file := filepath.Join(state.SeenDir(st.Dir), "mark")
	right, err := os.ReadFile(file)
	must(t, err)
	for _, damaged := range []bool{false, true, true, false} {
		mark := slices.Clone(right)
		if damaged {
			mark[0]++
		}
		must(t, os.WriteFile(file, mark, 0o600))
		if err := st.CheckRestored(t.Context()); (err != nil) != damaged {
			t.Fatal(damaged, err)
		}
		if c.sources().Codes() == damaged {
			t.Error("the metric does not say whether codes are accepted: ", damaged)
		}
		c.checkCodes(t.Context())
	}
	events, err := st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventCheckCodes})
	must(t, err)
	if len(events) != 2 || events[0].Outcome != postern.Failed || events[1].Outcome != postern.OK {
		t.Errorf("%+v", events)
	}
}
