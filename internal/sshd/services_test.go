package sshd_test

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/timeline"
)

// TestSudoSuAndLogin has the other services that ask PAM ask for a code.
func TestSudoSuAndLogin(t *testing.T) {
	t.Parallel()
	posterntest.NeedRoot(t)
	for _, program := range []string{"sudo", "su", "login", "script", "setpriv"} {
		posterntest.Need(t, program)
	}
	module := posterntest.PAMModule(t) + " socket=@DIR@/pam.sock"
	stack := "auth required " + module + "\naccount required " + module + "\nsession optional " + module + "\n"
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Config:   "UsePAM yes\n",
		Accounts: []posterntest.Account{{Name: "alice"}, {Name: "fred"}},
		Files: map[string]string{
			"/etc/pam.d/sudo": stack, "/etc/pam.d/su": stack, "/etc/pam.d/login": stack,
			"/etc/sudoers.d/alice": "alice ALL=(ALL) ALL\n",
		},
	})
	rig := servertest.NewSSH(t, "alice", "fred")
	rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)
	alice := []string{"-s", "KILL", "10", "setpriv", "--reuid", "20000", "--regid", "20000", "--clear-groups"}
	for _, c := range []struct {
		service string
		person  string // whose code is asked for
		command func() *exec.Cmd
	}{
		{"sudo", "alice", func() *exec.Cmd {
			return h.Command("timeout", append(alice, "sudo", "-k", "-S", "echo", "in")...)
		}},
		{"su", "fred", func() *exec.Cmd {
			return h.Command("timeout", append(alice, "su", "fred", "-c", "echo in")...)
		}},
	} {
		for state, code := range map[string]string{"wrong": "wrong", "right": rig.Touch(t, c.person)} {
			t.Run(c.service+" with a "+state+" code", func(t *testing.T) {
				cmd := c.command()
				cmd.Stdin = strings.NewReader(code + "\necho i''n\nexit\n")
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				cmd.WaitDelay = time.Second
				_ = cmd.Run()
				in := false
				for line := range strings.Lines(out.String()) {
					in = in || strings.TrimSpace(strings.TrimPrefix(line, "YubiKey OTP: ")) == "in"
				}
				if in != (state == "right") {
					t.Errorf("in %v: %q", in, out.String())
				}
			})
		}
	}
	for code, want := range map[string]string{"wrong": "incorrect", rig.Touch(t, "fred"): "$ "} {
		cmd := h.Command("timeout", "-s", "KILL", "20", "script", "-qec", "login fred", "/dev/null")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		expectAll(t, out, "YubiKey OTP: ")
		io.WriteString(in, code+"\n")
		expectAll(t, out, want)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for service, want := range map[string]string{
		"sudo": "alice became root by sudo", "su": "alice became fred by su",
		"login": "fred opened a session of login as fred",
	} {
		if got := sentenceOf(t, rig, service, postern.EventPAMOpened); !strings.HasPrefix(got, want) {
			t.Errorf("the timeline says of %s: %q", service, got)
		}
	}
	for _, service := range []string{"sudo", "su", "login"} {
		outcomes := eventsOf(t, rig, service, postern.EventPAMAuth)
		if strings.Count(outcomes, "ok") != 1 || !strings.Contains(outcomes, "refused") {
			t.Errorf("the timeline says of %s: %s", service, outcomes)
		}
		if n := eventsOf(t, rig, service, postern.EventPAMOpened); n != "ok" {
			t.Errorf("the timeline says of sessions of %s: %q", service, n)
		}
	}
}

// eventsOf returns the outcomes of a service's events of a kind, oldest first.
func eventsOf(t *testing.T, rig *servertest.SSH, service, kind string) string {
	t.Helper()
	events, err := rig.State.Store.Timeline().Events(t.Context(), timeline.Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, ev := range events {
		if ev.Kind == kind && ev.Details["service"] == service && ev.Details["method"] != "account" {
			out = append(out, string(ev.Outcome))
		}
	}
	return strings.Join(out, ",")
}

// sentenceOf returns a service's first event of a kind in words.
func sentenceOf(t *testing.T, rig *servertest.SSH, service, kind string) string {
	t.Helper()
	events, err := rig.State.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: kind, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		if ev.Details["service"] == service {
			return timeline.Sentence(ev, nil)
		}
	}
	return ""
}
