package sshlog

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

func TestLogLines(t *testing.T) {
	const fp = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, c := range []struct{ line, want string }{
		{
			"Accepted publickey for alice from 192.0.2.7 port 50000 ssh2: ED25519 " + fp,
			"ssh.auth ok alice 192.0.2.7 publickey ED25519 ssh-key=" + fp,
		},
		{
			"Accepted publickey for alice from 2001:db8::1 port 50000 ssh2: ED25519-CERT " + fp +
				" ID alice (serial 4711) CA ED25519 " + fp,
			"ssh.auth ok alice 2001:db8::1 publickey ED25519-CERT ssh-cert=4711 ssh-key=" + fp,
		},
		{
			"Partial publickey for alice from 192.0.2.7 port 50000 ssh2: RSA " + fp,
			"ssh.auth ok alice 192.0.2.7 publickey RSA partial ssh-key=" + fp,
		},
		{
			"Accepted publickey for alice from 192.0.2.7 port 50000 ssh2: ECDSA-SK " + fp,
			"ssh.auth ok alice 192.0.2.7 publickey ECDSA-SK ssh-key=" + fp,
		},
		{
			"Accepted publickey for alice from 192.0.2.7 port 50000 ssh2: ED25519-SK-CERT " + fp +
				" ID alice (serial 4711) CA ED25519 " + fp,
			"ssh.auth ok alice 192.0.2.7 publickey ED25519-SK-CERT ssh-cert=4711 ssh-key=" + fp,
		},
		{"Postponed keyboard-interactive for alice from 192.0.2.7 port 50000 ssh2 [preauth]", ""},
		{
			"Accepted keyboard-interactive/pam for alice from 192.0.2.7 port 50000 ssh2",
			"ssh.auth ok alice 192.0.2.7 keyboard-interactive/pam",
		},
		{
			"Failed password for invalid user bob from 192.0.2.7 port 50000 ssh2",
			"ssh.auth refused bob 192.0.2.7 password",
		},
		{
			"Failed none for invalid user a from 192.0.2.1 port 1 ssh2 from 192.0.2.7 port 50000 ssh2",
			"ssh.auth refused a from 192.0.2.1 port 1 ssh2 192.0.2.7 none",
		},
		{"pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)", "ssh.session.opened ok alice"},
		{"pam_unix(sshd:session): session closed for user alice", "ssh.session.closed ok alice"},
		{"Accepted publickey for alice from 192.0.2.7", ""},
		{
			"Received disconnect from 192.0.2.7 port 1:11: Accepted publickey for root from 192.0.2.7 port 50000 ssh2",
			"",
		},
		{"Invalid user Accepted publickey for root from 192.0.2.7 port 50000", ""},
		{"", ""},
	} {
		ev, ok := Parse(c.line)
		if ok != (c.want != "") || ok && Describe(ev) != c.want {
			t.Errorf("%q: %v %q, want %q", c.line, ok, Describe(ev), c.want)
		}
	}
}

func Describe(ev postern.Event) string {
	words := []string{
		ev.Kind, string(ev.Outcome), ev.Object, ev.Address, ev.Details["method"],
		ev.Details["key_type"], ev.Details["step"],
	}
	for _, l := range ev.Links {
		if l.Kind != postern.LinkProcess && l.Kind != postern.LinkSession {
			words = append(words, l.Kind+"="+l.ID)
		}
	}
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// Watch starts a watcher over lines and returns where its events go.
func Watch(t *testing.T, lines <-chan Line) chan postern.Event {
	t.Helper()
	out := make(chan postern.Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Watcher{
			Record: posterntest.Recorder(out), Log: slog.New(slog.DiscardHandler),
			Person: func(_ context.Context, account string) string {
				return account
			}, Sessions: true,
		}.Watch(ctx, lines)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return out
}

func TestJournalLines(t *testing.T) {
	const entry = `{"MESSAGE":"Accepted publickey for alice from 192.0.2.7 port 1 ssh2",` +
		`"_PID":"7","_UID":"0","__REALTIME_TIMESTAMP":"1700000000000000"}`
	lines := make(chan Line, 10)
	r := &logReader{lines: lines}
	text := entry + "\n" + strings.Replace(entry, `"_UID":"0"`, `"_UID":"1000"`, 1) + "\nnonsense\n" +
		strings.Replace(entry, `"Accepted`, `[65,66],"X":"`, 1) + "\n"
	if err := r.readEntries(t.Context(), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 {
		t.Errorf("%d lines count, want 1", len(lines))
	}
	if l := <-lines; l.PID != 7 || l.Time.Unix() != 1700000000 || !strings.HasPrefix(l.Message, "Accepted") {
		t.Errorf("%+v", l)
	}
}

func TestLogFileThroughRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.log")
	line := func(user string) string {
		return "Nov 24 06:00:00 host sshd[7]: Accepted publickey for " + user + " from 192.0.2.7 port 1 ssh2\n"
	}
	add := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	add(line("before"))
	lines := make(chan Line)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- readFile(ctx, path, lines) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	next := func(user string) {
		t.Helper()
		for l := range lines {
			if strings.Contains(l.Message, " alice ") {
				continue // of those below
			}
			if !strings.Contains(l.Message, " "+user+" ") || l.PID != 7 {
				t.Errorf("got %+v, want %s", l, user)
			}
			return
		}
	}
	// Until the reader has found its place, what is added may be before it.
	for found := false; !found; {
		add(line("alice"))
		select {
		case <-lines:
			found = true
		default:
			posterntest.Pause(t)
		}
	}
	add(line("bob")[:30])
	add(line("bob")[30:] + strings.Replace(line("eve"), "sshd[7]", "cron[7]", 1))
	next("bob")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	add("2026-11-24T06:00:00.000000+00:00 host sshd-session[7]: Accepted publickey for carol from 192.0.2.7 port 1 " +
		"ssh2\n")
	next("carol")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	add(line("dave"))
	next("dave")
}

// TestForgedLines writes a file as logger(1) does for any user, for processes that
// are no sshd, or none at all.
func TestForgedLines(t *testing.T) {
	lines := make(chan Line)
	seen := Watch(t, lines)
	for _, pid := range []string{strconv.Itoa(os.Getpid()), "1", "4194999"} {
		line, ok := parseFileLine("Nov 24 06:00:00 host sshd[" + pid +
			"]: Accepted publickey for root from 192.0.2.66 port 1 ssh2")
		if !ok {
			t.Fatal("no line of sshd's")
		}
		lines <- line
	}
	ev := <-seen
	if ev.Details["source"] != "file, unverified" || len(ev.Links) > 0 {
		t.Errorf("accepted: %+v", ev)
	}
	close(lines)
	select {
	case ev := <-seen:
		t.Errorf("accepted from a process that is no sshd: %+v", ev)
	default:
	}
}

// TestLogIsReadAgain has its reader end at once, and then last.
func TestLogIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		notified := make(chan string, 10)
		var runs atomic.Int32
		go persist(ctx, func(ctx context.Context) error {
			if n := runs.Add(1); n < 5 || n == 6 {
				return errors.New("no journalctl")
			}
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
			}
			return nil
		}, false, func(err error) {
			if err == nil {
				err = errors.New("again")
			}
			notified <- err.Error()
		})
		time.Sleep(14 * time.Second) // 1+2+4+8 before the fifth
		synctest.Wait()
		if runs.Load() != 4 || len(notified) != 1 {
			t.Errorf("%d runs, notified %d times", runs.Load(), len(notified))
		}
		time.Sleep(2 * time.Minute)
		for _, want := range []string{"no journalctl", "again", "sshd's log came to an end", "again"} {
			if got := <-notified; got != want {
				t.Errorf("notified %q, want %q", got, want)
			}
		}
		cancel()
	})
}

func FuzzParseLogLine(f *testing.F) {
	f.Add("Accepted publickey for alice from 192.0.2.7 port 50000 ssh2: ED25519-CERT " +
		"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ID alice (serial 4711) CA ED25519 " +
		"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("Failed password for invalid user \x1b[31m from 192.0.2.7 port 50000 ssh2")
	f.Add("pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)")
	f.Fuzz(func(t *testing.T, line string) {
		ev, ok := Parse(line)
		if ok && strings.ContainsFunc(ev.Object+ev.Details["method"]+ev.Details["key_id"], func(r rune) bool {
			return r < ' '
		}) {
			t.Errorf("control characters in %+v", ev)
		}
		parseFileLine(line)
		parseJournal([]byte(line))
	})
}
