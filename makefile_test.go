package postern_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestMakeInstallsMissingPackages runs the Makefile's package step with
// stand-ins for Debian's programs, each of which writes down how it was called.
func TestMakeInstallsMissingPackages(t *testing.T) {
	posterntest.Need(t, "make")
	for _, c := range []struct {
		name      string
		uid       int
		installed string // of the packages alpha and beta
		apt       string // what apt-get exits with
		calls     []string
		fails     bool
	}{
		{
			"root, one missing", 0, "alpha", "0",
			[]string{"apt-get update", "noninteractive apt-get install beta"},
			false,
		},
		{
			"root, all missing", 0, "", "0",
			[]string{"apt-get update", "noninteractive apt-get install alpha beta"},
			false,
		},
		{"root, none missing", 0, "alpha beta", "0", nil, false},
		{"root, apt-get fails", 0, "alpha", "100", []string{"apt-get update"}, true},
		{"another user, one missing", 1000, "alpha", "0", []string{
			"sudo apt-get update",
			"sudo noninteractive apt-get install beta",
		}, false},
		{"another user, none missing", 1000, "alpha beta", "0", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin, policy := t.TempDir(), filepath.Join(t.TempDir(), "policy-rc.d")
			calls := filepath.Join(bin, "calls")
			for name, script := range map[string]string{
				"id":  fmt.Sprintf("echo %d", c.uid),
				"npm": "exit 0",
				"dpkg-query": fmt.Sprintf(
					`for last; do :; done; case " %s " in *" $last "*) echo installed;; *) exit 1;; esac`,
					c.installed),
				// Like the real one: options come first, and the command is run.
				"sudo": `case "$1" in -*) exit 1;; esac; BY_SUDO=1 exec "$@"`,
				"apt-get": fmt.Sprintf(`words="${BY_SUDO:+sudo }${DEBIAN_FRONTEND:+$DEBIAN_FRONTEND }apt-get"
for word; do case "$word" in -*) ;; *) words="$words $word";; esac; done
[ -x %q ] || words="$words, and services may start"
echo "$words" >>%q; exit %s`, policy, calls, c.apt),
			} {
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"),
					0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("make", "packages", "PACKAGES=alpha beta", "POLICY_RC="+policy)
			cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
			out, err := cmd.CombinedOutput()
			if (err != nil) != c.fails {
				t.Fatalf("make packages: %v\n%s", err, out)
			}
			called, _ := os.ReadFile(calls)
			want := ""
			if len(c.calls) > 0 {
				want = strings.Join(c.calls, "\n") + "\n"
			}
			if string(called) != want {
				t.Errorf("called\n%swant\n%s\n%s", called, want, out)
			}
			if _, err := os.Stat(policy); err == nil {
				t.Error("the step left its policy-rc.d behind")
			}
		})
	}
}
