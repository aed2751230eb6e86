package audit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// TestWalkAgreesWithLibpam walks random stacks of pam_debug, whose return values are
// its options, and has libpam go through them, too.
func TestWalkAgreesWithLibpam(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "authenticate")
	args := []string{"-std=c11", "-D_GNU_SOURCE", "-o", program, "../../../pam/testdata/authenticate.c", "-lpam"}
	if out, err := exec.Command(posterntest.Need(t, "cc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	confdir := filepath.Join(dir, "etc/pam.d")
	if err := os.MkdirAll(confdir, 0o755); err != nil {
		t.Fatal(err)
	}
	// What libpam finds on this host is found below dir, too.
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, dir), 0o755), os.Symlink("/etc", filepath.Join(dir, dir, "etc"))); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	granted := 0
	for range 1000 {
		text := randomStack(r, filepath.Join(confdir, "sub"))
		for name, content := range map[string]string{"test": text, "sub": randomStack(r, "")} {
			if err := os.WriteFile(filepath.Join(confdir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			text += "-- " + name + "\n" + content
		}
		out, err := exec.Command(program, confdir, "test", "root", "1").Output()
		if err != nil {
			t.Fatal(err)
		}
		stack, err := hostconf.Files{Root: dir}.PAMStack("test", "auth")
		if err != nil {
			t.Fatal(err)
		}
		real, ours := strings.HasPrefix(string(out), "auth=0 "), len(passes(stack, hostconf.Case{User: "root"})) > 0
		if real != ours {
			t.Errorf("libpam grants: %v (%s), the walk: %v\n%s", real, strings.TrimSpace(string(out)), ours, text)
		}
		if real {
			granted++
		}
	}
	if granted < 100 || granted > 900 {
		t.Errorf("%d of 1000 stacks grant: the stacks do not tell much", granted)
	}
}

// randomStack returns lines of pam_debug, and with the substack sub, unless that is
// empty.
func randomStack(r *rand.Rand, sub string) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	value := func() string {
		return pick("success", "success", "success", "success", "ignore", "auth_err", "user_unknown", "authinfo_unavail", "perm_denied", "maxtries", "new_authtok_reqd")
	}
	var b strings.Builder
	for range 1 + r.IntN(5) {
		control := pick("required", "requisite", "sufficient", "optional")
		if r.IntN(2) == 0 {
			action := func() string { return pick("ignore", "ok", "done", "bad", "die", "reset", "1", "2", "3") }
			control = fmt.Sprintf("[success=%s %s=%s ignore=%s default=%s]", action(), value(), action(), action(), action())
		}
		if sub != "" && r.IntN(5) == 0 {
			fmt.Fprintln(&b, "auth substack "+sub)
			continue
		}
		fmt.Fprintf(&b, "auth %s pam_debug.so auth=%s\n", control, value())
	}
	return b.String()
}
