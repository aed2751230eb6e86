package audit

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
)

// TestSELinuxModule compiles the policy module, and holds its file contexts against
// where the daemon listens.
func TestSELinuxModule(t *testing.T) {
	posterntest.Need(t, "checkmodule")
	posterntest.Need(t, "semodule_package")
	dir := t.TempDir()
	for _, name := range []string{"Makefile", "postern.te", "postern.fc"} {
		b, err := os.ReadFile(filepath.Join(posterntest.ModuleDir(t), "packaging/selinux", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		context, _, _ := strings.Cut(string(b), "(")
		if name == "postern.fc" && context != filepath.Dir(sshd.DefaultSocket) {
			t.Errorf("%s, not the directory of %s", context, sshd.DefaultSocket)
		}
	}
	out, err := exec.Command(posterntest.Need(t, "make"), "-C", dir, "install", "DESTDIR="+dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	st, err := os.Stat(filepath.Join(dir, "usr/share/selinux/packages/postern.pp"))
	if err != nil || st.Size() < 1000 {
		t.Errorf("%v, %v", st, err)
	}
}
