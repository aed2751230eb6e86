package socket

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/sshlog"
)

// TestWatcherFollowsALogin follows sshd's log while a user logs in with key and code, and
// another one writes lines for sshd's process.
func TestWatcherFollowsALogin(t *testing.T) {
	posterntest.NeedRoot(t)
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Config:   "LogLevel VERBOSE\n" + keyAndCode,
		LoginLog: true,
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: map[string]string{"/etc/pam.d/sshd": pamFile(posterntest.PAMModule(t),
			keyAndCodePAM+"session required pam_unix.so\n")},
	})
	var answered events
	startServer(t, filepath.Join(h.Dir, "pam.sock"), Config{}, newCodes(code1), &answered)
	lines := make(chan sshlog.Line, 100)
	h.Logged(t, func(pid int, message string) {
		// As if it came from a file, with a line that another user added.
		lines <- sshlog.Line{
			PID: pid, Time: time.Now(), Unverified: true,
			Message: strings.ReplaceAll(message, "alice", "mallory"),
		}
		lines <- sshlog.Line{PID: pid, Time: time.Now(), Unverified: true, Message: message}
	})
	seen := watch(t, lines)

	c, err := h.Connect("alice", posterntest.Answers(code1))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ssh.auth ok alice 127.0.0.1 publickey partial ssh-key=",
		"ssh.auth ok alice 127.0.0.1 keyboard-interactive/pam",
		"ssh.session.opened ok alice",
	}
	var process, session postern.Link
	for len(want) > 0 {
		ev := <-seen
		if ev.Object == "mallory" || ev.Details["source"] != "file, unverified" {
			t.Fatalf("a forged line is recorded: %+v", ev)
		}
		if strings.HasPrefix(describe(ev), want[0]) {
			want = want[1:]
			process, session = link(ev, postern.LinkProcess), link(ev, postern.LinkSession)
		}
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Output("cat /proc/self/sessionid")
	if err != nil || !strings.HasSuffix(session.ID, "/"+strings.TrimSpace(string(id))) {
		t.Errorf("the shell runs in audit session %s, the timeline says %s", id, session.ID)
	}
	// The daemon, asked by PAM, saw the same process.
	if accepted := answered.list()[0]; link(accepted, postern.LinkProcess) != process {
		t.Errorf("PAM's code came from %v, the session is of %v", link(accepted, postern.LinkProcess), process)
	}
	c.Close()
	for ev := range seen {
		if ev.Kind == postern.EventSSHClosed {
			break
		}
	}
}

// watch starts a watcher over lines and returns where its events go.
func watch(t *testing.T, lines <-chan sshlog.Line) chan postern.Event {
	t.Helper()
	out := make(chan postern.Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w := sshlog.Watcher{
		Record: posterntest.Recorder(out), Log: slog.New(slog.DiscardHandler), Sessions: true,
		Person: func(_ context.Context, account string) string { return account },
	}
	go func() { defer close(done); w.Watch(ctx, lines) }()
	t.Cleanup(func() { cancel(); <-done })
	return out
}

// describe is an event in one line.
func describe(ev postern.Event) string {
	words := []string{ev.Kind, string(ev.Outcome), ev.Object, ev.Address, ev.Details["method"], ev.Details["step"]}
	for _, l := range ev.Links {
		if l.Kind == string(postern.SSHKey) {
			words = append(words, l.Kind+"="+l.ID)
		}
	}
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}
