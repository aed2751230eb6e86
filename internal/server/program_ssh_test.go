package server_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/setup"
)

// TestRunAnswersSSHD starts the program itself, and logs in with key and code:
// then the timeline says who, with what, and in which session.
func TestRunAnswersSSHD(t *testing.T) {
	posterntest.NeedRoot(t)
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: servertest.SSHDFiles(t, setup.Setup{
			Mode: setup.KeyAndCode, Module: posterntest.PAMModule(t), Socket: "@DIR@/pam.sock",
		}, ""),
	})
	r := startRun(t, filepath.Join(t.TempDir(), "state"), "--pam-socket", filepath.Join(h.Dir, "pam.sock"))
	must := func(args ...string) string {
		t.Helper()
		out, err := r.postern(args...)
		if err != nil {
			t.Fatalf("postern %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(out)
	}
	token := filepath.Join(t.TempDir(), "token")
	must("user", "add", "alice")
	must("otp", "token", "new", token)
	csv := must("otp", "token", "csv", token)
	cmd := exec.Command(r.program, "otp", "import", "--person", "alice", "-")
	cmd.Env, cmd.Stdin = r.env, strings.NewReader(csv+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code := must("otp", "token", "touch", token)
	if c, err := h.Connect("alice", posterntest.Answers(strings.Repeat("c", 44))); err == nil {
		c.Close()
		t.Fatal("a wrong code is accepted")
	}
	c, err := h.Connect("alice", posterntest.Answers(code))
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, h.Log(), r.out)
	}
	c.Close()
	// sshd opens the session once the client knows that it has signed in.
	var recorded string
	missing := "all"
	for end := time.Now().Add(10 * time.Second); missing != "" && time.Now().Before(end); {
		recorded, missing = must("log", "list", "--json", "--kind", "ssh"), ""
		for _, want := range []string{
			`"kind":"ssh.auth","outcome":"refused"`, `"kind":"ssh.auth","outcome":"ok"`,
			`"kind":"ssh.session.opened"`, `"kind":"session"`, `"person":"alice"`,
		} {
			if !strings.Contains(recorded, want) {
				missing = want
			}
		}
	}
	if missing != "" {
		t.Errorf("the timeline lacks %s:\n%s", missing, recorded)
	}
}
