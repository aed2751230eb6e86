package audit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

func FuzzDirectives(f *testing.F) {
	f.Add("Match User a,!b Address 192.0.2.0/24\n\tForceCommand \"x y\" # z\nInclude a/*.conf\nPort=22\n",
		"auth [success=1 default=ignore] pam_unix.so nullok\n@include common-auth\nauth sufficient \\\n"+
			" pam_yubico.so id=16\n")
	f.Fuzz(func(t *testing.T, config, pam string) {
		root := t.TempDir()
		for name, content := range map[string]string{"c": config, "etc/pam.d/s": pam} {
			path := filepath.Join(root, name)
			if os.MkdirAll(filepath.Dir(path), 0o755) != nil || os.WriteFile(path, []byte(content), 0o644) != nil {
				t.Fatal("cannot write")
			}
		}
		h := hostconf.Files{Root: root}
		ds, _ := h.Directives("/c")
		for _, d := range ds {
			d.Applies(hostconf.Case{User: "a", Address: "192.0.2.1"})
		}
		stack, _ := h.PAMStack("s", "auth")
		if tried, _ := cases(patternsOf(ds), []account{{name: "a", UID: 1000}}, stack, "sshd"); len(tried) > casesMax {
			t.Errorf("%d cases", len(tried))
		}
		for _, p := range passes(stack, hostconf.Case{User: "a"}) {
			if len(p.factors) > len(stack) {
				t.Errorf("%d lines prove %q", len(stack), p.factors)
			}
		}
	})
}
