package alert

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/webhook"
)

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCommandGetsTheMessage runs a command with an argument that a shell would take apart.
func TestCommandGetsTheMessage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	m := Message{
		ID: "1", Alert: "x", Text: "someone did", Event: postern.Event{Person: "ann"},
		To: Receiver{Command: []string{
			script(t, `cat >"$1"; printf '%s\n%s %s %s' "$2" "$POSTERN_ALERT" "$POSTERN_ALERT_ID" "$HOME" >>"$1"`),
			out,
			"a b; $(id) *",
		}},
	}
	t.Setenv("HOME", "/secret")
	if err := runCommand(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	var got public
	if err := json.Unmarshal([]byte(first), &got); err != nil || got.Text != "someone did" ||
		got.Event.Person != "ann" {
		t.Errorf("%s: %v", first, err)
	}
	if rest != "a b; $(id) *\nx 1 " {
		t.Errorf("%q", rest)
	}
}

func TestCommandThatFailsOrHangsIsAnError(t *testing.T) {
	if err := runCommand(t.Context(), Message{To: Receiver{Command: []string{"/bin/false"}}}); postern.CodeOf(err) !=
		postern.Unavailable {
		t.Error(err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	hangs := Message{To: Receiver{Command: []string{script(t,
		`sleep 1000 & echo $! >"$0.pid"; mv "$0.pid" "$1"; wait`), pid}}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runCommand(ctx, hangs) }()
	var text []byte
	for ; len(text) == 0; posterntest.Pause(t) {
		text, _ = os.ReadFile(pid)
	}
	cancel()
	if err := <-ended; postern.CodeOf(err) != postern.Unavailable {
		t.Error(err)
	}
	child := "/proc/" + strings.TrimSpace(string(text)) + "/stat"
	for ; ; posterntest.Pause(t) { // it is gone, or its parent has not waited for it yet
		stat, err := os.ReadFile(child)
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
	}
}

func TestNamesOfReceiversHaveNoSecrets(t *testing.T) {
	r := Receiver{Webhook: &webhook.Webhook{URL: "https://user:password@hooks.example.com/services/SECRET?key=SECRET"}}
	if got := r.String(); got != "webhook hooks.example.com" {
		t.Error(got)
	}
}

func TestMailSaysWhenAndHowOften(t *testing.T) {
	m := Message{
		Alert: "x", Count: 3, Text: "Ann signed in.",
		Event: postern.Event{Index: 7, Time: time.Date(2026, 11, 30, 14, 0, 0, 0, time.UTC)},
	}
	for _, want := range []string{"Monday 30 November 2026, 14:00:00 UTC", "Ann signed in.", "last of 3", "entry 7"} {
		if !strings.Contains(m.mail(), want) {
			t.Errorf("%q is not in\n%s", want, m.mail())
		}
	}
	if m.subject() != "Postern: x (3 times)" {
		t.Error(m.subject())
	}
}
