package sshd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/rogpeppe/go-internal/txtar"
)

// baseFiles are on every test host that does not bring its own.
var baseFiles = map[string]string{
	"etc/passwd":            "root:x:0:0::/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\nalice:x:1000:1000::/home/alice:/bin/bash\nfred:x:1001:1001::/home/fred:/bin/bash\nrobot:x:1002:1002::/home/robot:/bin/sh\n",
	"etc/group":             "root:x:0:\nalice:x:1000:\nfred:x:1001:\nrobot:x:1002:\nremote:x:1100:robot\n",
	"etc/pam.d/common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n",
	"etc/pam.d/sshd":        "@include common-auth\n",
}

// sshdCommand runs sshd where /run/sshd need not exist and etc/passwd and
// etc/group are the test host's.
func sshdCommand(t testing.TB, root string) []string {
	t.Helper()
	posterntest.NeedRoot(t)
	posterntest.Need(t, "sshd")
	posterntest.Need(t, "unshare")
	_, key := posterntest.NewSSHKey(t, root, "hostkey")
	script := `mount -t tmpfs tmpfs /run && mkdir /run/sshd && for f in passwd group; do mount --bind "$1/etc/$f" /etc/$f; done && shift && exec /usr/sbin/sshd "$@"`
	return []string{"unshare", "--mount", "sh", "-c", script, "sh", root, "-h", key}
}

// lay writes an archive's files below a new root.
func lay(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, set := range []map[string]string{baseFiles, files} {
		for name, content := range set {
			if name == "etc/pam.d/sshd" && files["usr/lib/pam.d/sshd"] != "" {
				continue // the distribution's is there
			}
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "etc/ssh/") {
				content = strings.NewReplacer("Include /etc/", "Include "+root+"/etc/", " /etc/ssh/", " "+root+"/etc/ssh/").Replace(content)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestAuditorSaysWhyItCannot(t *testing.T) {
	posterntest.NeedRoot(t)
	posterntest.Need(t, "sshd")
	for want, a := range map[postern.Code]Auditor{
		postern.NotFound:    {Root: t.TempDir()},
		postern.Unavailable: {Root: t.TempDir(), SSHD: []string{"/nonexistent/sshd"}},
	} {
		if _, err := a.Audit(t.Context()); postern.CodeOf(err) != want || err == nil {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func TestAuditFindsWhatIsWrongAndNothingElse(t *testing.T) {
	archives, err := filepath.Glob("testdata/audit/*.txtar")
	if err != nil || len(archives) < 32 {
		t.Fatalf("%d configurations, %v", len(archives), err)
	}
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range ar.Files {
				files[f.Name] = string(f.Data)
			}
			root := lay(t, files)
			clock := Clock{Synchronized: true}
			var timeCodes func(context.Context) (bool, error)
			var want []string
			for line := range strings.Lines(string(ar.Comment)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				switch key {
				case "want":
					want = strings.Fields(value)
				case "clock":
					if value == "free" {
						clock.Synchronized = false
					} else {
						clock.Offset, err = time.ParseDuration(value)
					}
				case "totp":
					timeCodes = func(context.Context) (bool, error) { return value == "used", nil }
				case "mode":
					name, octal, _ := strings.Cut(value, " ")
					var mode uint64
					if mode, err = strconv.ParseUint(octal, 8, 32); err == nil {
						err = os.Chmod(filepath.Join(root, name), os.FileMode(mode))
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			a := Auditor{Root: root, SSHD: sshdCommand(t, root), Clock: func() Clock { return clock }, TimeCodes: timeCodes}
			report, err := a.Audit(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				if f.Where.File == "" || f.Proof == "" || f.Mend == "" || f.Title == "" {
					t.Errorf("%s says too little: %+v", f.ID, f)
				}
				id := f.ID
				if f.Severity == Low {
					id += "(low)"
				}
				if !slices.Contains(got, id) {
					got = append(got, id)
				}
				t.Logf("%s %s: %s\n\t%s\n\tcase %s\n\tproof %s\n\tmend %s", f.Severity, f.ID, f.Title, f.Where, f.Case, f.Proof, f.Mend)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}
