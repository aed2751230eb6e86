package audit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
)

// compiledModule compiles the policy module and returns the directory with postern.pp.
func compiledModule(t *testing.T) string {
	t.Helper()
	posterntest.Need(t, "checkmodule")
	posterntest.Need(t, "semodule_package")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(posterntest.ModuleDir(t), "packaging/selinux"))); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(dir, "postern.pp")) // of an earlier make there
	run(t, dir, "make", "install", "DESTDIR="+dir)
	return dir
}

// run runs a program in a directory.
func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(posterntest.Need(t, program), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// TestSELinuxModule holds the module's file contexts against where the daemon listens.
func TestSELinuxModule(t *testing.T) {
	dir := compiledModule(t)
	b, err := os.ReadFile(filepath.Join(dir, "postern.fc"))
	if err != nil {
		t.Fatal(err)
	}
	if context, _, _ := strings.Cut(string(b), "("); context != filepath.Dir(sshd.DefaultSocket) {
		t.Errorf("%s, not the directory of %s", context, sshd.DefaultSocket)
	}
	if st, err := os.Stat(filepath.Join(dir, "usr/share/selinux/packages/postern.pp")); err != nil ||
		st.Size() < 1000 {
		t.Errorf("%v, %v", st, err)
	}
}

// basePolicy is as much of a policy as the module builds on, with types of one's choice.
const basePolicy = `class process
class dir
class sock_file
class unix_stream_socket
sid kernel
class process { transition }
class dir { search getattr }
class sock_file { write getattr }
class unix_stream_socket { connectto }
sensitivity s0;
dominance { s0 }
category c0;
level s0:c0;
mlsconstrain process transition ( h1 dom h2 );
attribute file_type;
attribute domain;
type init_t, domain;
type sshd_t, domain;
%s
neverallow domain ~domain:unix_stream_socket connectto;
role system_r;
role system_r types domain;
user system_u roles system_r level s0 range s0 - s0:c0;
sid kernel system_u:system_r:init_t:s0
`

// TestSELinuxModuleFitsPolicies links the module with policies that have different types: a part
// that one of them lacks must not take the rest with it.
func TestSELinuxModuleFitsPolicies(t *testing.T) {
	dir := compiledModule(t)
	for name, c := range map[string]struct {
		types string
		want  []string // who may connect to whom
	}{
		"neither": {"", []string{"postern_client init_t"}},
		"the reference policy": {
			"attribute sudodomain;\ntype initrc_t, domain;\ntype local_login_t, domain;\n" +
				"type sysadm_sudo_t, domain, sudodomain;\n",
			[]string{
				"postern_client init_t", "postern_client initrc_t", "sudodomain init_t", "sudodomain initrc_t",
				"typeattribute local_login_t domain, postern_client;",
			},
		},
		"Fedora's": {
			"attribute sudodomain;\ntype unconfined_service_t, domain;\ntype sshd_session_t, domain;\n",
			[]string{
				"postern_client unconfined_service_t", "sudodomain unconfined_service_t",
				"typeattribute sshd_session_t domain, postern_client;",
			},
		},
	} {
		base := fmt.Sprintf(basePolicy, c.types)
		if err := os.WriteFile(filepath.Join(dir, "base.te"), []byte(base), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, dir, "checkmodule", "-M", "-o", "base.mod", "base.te")
		run(t, dir, "semodule_package", "-o", "base.pp", "-m", "base.mod")
		run(t, dir, "semodule_link", "-o", "linked.pp", "base.pp", "postern.pp")
		run(t, dir, "semodule_expand", "linked.pp", "policy")
		run(t, dir, "checkpolicy", "-M", "-b", "-F", "-o", "policy.conf", "policy")
		got, err := os.ReadFile(filepath.Join(dir, "policy.conf"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.HasSuffix(want, ";") {
				want = "allow " + want + ":unix_stream_socket { connectto };"
			}
			if !strings.Contains(string(got), want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
	}
}
