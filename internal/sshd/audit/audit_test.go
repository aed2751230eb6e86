package audit

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

func TestAuditorSaysWhyItCannot(t *testing.T) {
	posterntest.NeedRoot(t)
	posterntest.Need(t, "sshd")
	root := posterntest.SSHDFiles(t, map[string]string{"etc/ssh/sshd_config": "UsePAM yes\n"})
	for want, a := range map[postern.Code]Auditor{
		postern.NotFound:    {Root: t.TempDir()},
		postern.Unavailable: {Root: root, SSHD: []string{"/nonexistent/sshd"}},
	} {
		if _, err := a.Audit(t.Context()); postern.CodeOf(err) != want || err == nil {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// TestAuditorSaysWhichLineSSHDRefuses holds a line that sshd's own complaint does
// not name.
func TestAuditorSaysWhichLineSSHDRefuses(t *testing.T) {
	const hardening = "etc/ssh/sshd_config.d/00-a-hardening.conf"
	root := posterntest.SSHDFiles(t, map[string]string{
		"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n" +
			"AuthenticationMethods publickey,keyboard-interactive\n",
		hardening: "# CIS\nKbdInteractiveAuthentication no\n",
	})
	_, err := Auditor{Root: root}.Audit(t.Context())
	if err == nil || !strings.Contains(err.Error(), "/"+hardening+":2: KbdInteractiveAuthentication no") {
		t.Errorf("%v", err)
	}
}

func TestAuditFindsWhatIsWrongAndNothingElse(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 120 {
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
			root := posterntest.SSHDFiles(t, files)
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
			a := Auditor{Root: root, Clock: func() Clock { return clock }, TimeCodes: timeCodes}
			report, err := a.Audit(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				if f.Where.File == "" || f.Proof == "" || f.Fix == "" || f.Title == "" {
					t.Errorf("%s says too little: %+v", f.ID, f)
				}
				id := f.ID
				if f.Severity == Low {
					id += "(low)"
				}
				if !slices.Contains(got, id) {
					got = append(got, id)
				}
				t.Logf("%s %s: %s\n\t%s\n\tcase %s\n\tproof %s\n\tfix %s", f.Severity, f.ID, f.Title, f.Where, f.Case,
					f.Proof, f.Fix)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

// TestAPersonIsTheExample has a service's account with a shell before one of a person.
func TestAPersonIsTheExample(t *testing.T) {
	accounts := []account{
		{name: "root"},
		{name: "postgres", UID: 106, shell: "/bin/bash"},
		{name: "alice", UID: 1000, shell: "/bin/bash"},
	}
	var names []string
	for _, a := range candidates(accounts, patterns{}, nil) {
		names = append(names, a.name)
	}
	if want := []string{"alice", "root"}; !slices.Equal(names, want) {
		t.Errorf("%v stand for their kinds, not %v", names, want)
	}
}
