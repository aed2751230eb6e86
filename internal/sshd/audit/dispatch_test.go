package audit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/rogpeppe/go-internal/txtar"
)

// libpam goes through stacks with the real one.
type libpam struct{ root, program string }

// newLibpam returns a root for PAM's files in which the names that libpam finds on
// this host are found, too.
func newLibpam(t *testing.T) libpam {
	t.Helper()
	l := libpam{root: t.TempDir()}
	l.program = filepath.Join(l.root, "authenticate")
	args := []string{"-std=c11", "-D_GNU_SOURCE", "-o", l.program, "../../../pam/testdata/authenticate.c", "-lpam"}
	if out, err := exec.Command(posterntest.Need(t, "cc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	err := os.MkdirAll(filepath.Join(l.root, l.root), 0o755)
	if err = errors.Join(err, os.Symlink("/etc", filepath.Join(l.root, l.root, "etc"))); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l libpam) dir() string { return filepath.Join(l.root, "etc/pam.d") }

// compare writes the files of PAM and reports whether libpam grants by the service
// "test", and whether the walk does.
func (l libpam) compare(t *testing.T, files map[string]string) (real, ours bool) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(l.dir()), os.MkdirAll(l.dir(), 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(l.dir(), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := exec.Command(l.program, l.dir(), "test", "root", "1").Output() // it fails where pam_start(3) does
	stack, err := hostconf.Files{Root: l.root}.PAMStack("test", "auth")
	if err != nil {
		t.Logf("the stack is not read: %v", err)
		return false, false // the audit says so
	}
	return strings.HasPrefix(string(out), "auth=0 "), len(passes(stack, hostconf.Case{User: "root"})) > 0
}

// TestWalkAgreesWithLibpam walks random stacks of pam_debug, whose return values are
// its options, and has libpam go through them, too.
func TestWalkAgreesWithLibpam(t *testing.T) {
	l := newLibpam(t)
	r := rand.New(rand.NewPCG(1, 2))
	granted := 0
	for range 1000 {
		files := map[string]string{"test": randomStack(r, filepath.Join(l.dir(), "sub")), "sub": randomStack(r, "")}
		real, ours := l.compare(t, files)
		if real != ours {
			t.Errorf("libpam grants: %v, the walk: %v\n%s", real, ours, files)
		}
		if real {
			granted++
		}
	}
	if granted < 100 || granted > 900 {
		t.Errorf("%d of 1000 stacks grant: the stacks do not tell much", granted)
	}
}

// TestLinesAreReadAsByLibpam holds lines that are written oddly. What libpam grants is
// never read as a refusal.
func TestLinesAreReadAsByLibpam(t *testing.T) {
	l := newLibpam(t)
	const (
		yes = "pam_debug.so auth=success"
		no  = "pam_debug.so auth=auth_err"
	)
	long := strings.Repeat("x", 1021)
	for name, text := range map[string]string{
		"CRLF":                        "auth sufficient " + yes + "\r\nauth required " + no + "\r\n",
		"CRLF behind the module":      "auth sufficient pam_permit.so\r\nauth required pam_deny.so\r\n",
		"CRLF and default":            "auth [success=ok default=ignore] pam_deny.so\r\nauth required pam_permit.so\n",
		"continued":                   "auth \\\n sufficient \\\n" + yes + "\nauth required " + no + "\n",
		"blanks behind the backslash": "auth sufficient \\ \t\n" + yes + "\nauth required " + no + "\n",
		"a continued comment":         "# nothing \\\nauth sufficient " + yes + "\nauth required " + no + "\n",
		"a comment that is continued": "auth required " + no + " # \\\nauth sufficient " + yes + "\n",
		"a comment between":           "auth sufficient \\\n# nothing\n\n" + yes + "\nauth required " + no + "\n",
		"continued at the end":        "auth required " + no + "\nauth sufficient " + yes + " \\\n",
		"no newline at the end":       "auth required " + yes,
		"a comment within":            "auth required " + yes + "#auth=auth_err\n",
		"a comment in the control":    "auth [success=done#]\nauth required " + yes + "\n",
		"tabs":                        "auth\tsufficient\t" + yes + "\nauth\trequired\t" + no + "\n",
		"a form feed":                 "auth\fsufficient\f" + yes + "\nauth required " + no + "\n",
		"capitals":                    "AUTH SUFFICIENT " + yes + "\nauth required " + no + "\n",
		"capitals in the control":     "auth [SUCCESS=DONE DEFAULT=IGNORE] " + yes + "\nauth required " + no + "\n",
		"no blank behind the control": "auth [success=done default=ignore]" + yes + "\nauth required " + no + "\n",
		"blanks in the control": "auth [ success=done  default=ignore ] " + yes + "\nauth required " + no +
			"\n",
		"blanks around =": "auth [success = done default = ignore] " + yes + "\nauth required " + no +
			"\n",
		"an unknown value":  "auth [succes=done default=ignore] " + yes + "\nauth required " + no + "\n",
		"an unknown action": "auth [success=don default=ignore] " + yes + "\nauth required " + yes + "\n",
		"a negative jump":   "auth [success=-1 default=ignore] " + yes + "\nauth required " + yes + "\n",
		"a jump of none":    "auth [success=0 default=ignore] " + yes + "\nauth required " + yes + "\n",
		"a jump with letters": "auth [success=1x default=ignore] " + yes + "\nauth required " + no +
			"\nauth required " + yes + "\n",
		"default before": "auth [default=ignore success=done] " + yes + "\nauth required " + no + "\n",
		"a value twice": "auth [success=ignore success=done default=ignore] " + yes +
			"\nauth required " + no + "\n",
		"success behind default":   "auth [success=bad default=done] " + no + "\nauth required " + yes + "\n",
		"an empty control":         "auth [] " + yes + "\nauth required " + yes + "\n",
		"a bracketed argument":     "auth required pam_debug.so [auth=success]\n",
		"an unknown control":       "auth requird " + yes + "\nauth required " + yes + "\n",
		"an unknown phase":         "auht required " + yes + "\nauth required " + yes + "\n",
		"no module":                "auth required\nauth required " + yes + "\n",
		"no control":               "auth\nauth required " + yes + "\n",
		"one word":                 "yes\nauth required " + yes + "\n",
		"a module that is missing": "-auth required pam_missing.so\nauth required " + yes + "\n",
		"one that is missing and done": "-auth [module_unknown=ignore default=done] pam_missing.so\nauth required " +
			yes + "\n",
		"an absolute module":         "auth required /lib/x86_64-linux-gnu/security/pam_permit.so\n",
		"@INCLUDE":                   "@INCLUDE @DIR@/sub\nauth required " + yes + "\n",
		"an include that is missing": "auth include @DIR@/missing\nauth required " + yes + "\n",
		"a jump over that": "auth [success=1 default=ignore] " + yes +
			"\nauth include @DIR@/missing\nauth required " + yes + "\n",
		"a substack that is missing": "auth substack @DIR@/missing\nauth required " + yes + "\n",
		"@include that is missing":   "@include @DIR@/missing\nauth required " + yes + "\n",
		"a line of 1021 bytes":       "#" + long[2:] + "\nauth required " + yes + "\n",
		"nothing":                    "",
		"a BOM":                      "\ufeffauth required " + no + "\nauth required " + yes + "\n",
		"include in capitals":        "auth INCLUDE @DIR@/sub\nauth required " + yes + "\n",
	} {
		sub := "auth sufficient " + yes + "\n"
		real, ours := l.compare(t, map[string]string{"test": strings.ReplaceAll(text, "@DIR@", l.dir()), "sub": sub})
		switch {
		case real && !ours:
			t.Errorf("%s: libpam grants, the walk does not", name)
		case ours && !real:
			t.Logf("%s: the walk grants, libpam does not", name)
		}
	}
	for name, text := range map[string]string{
		"a long line": "#" + long + strings.Repeat(" ", 10) + "auth sufficient pam_permit.so\n",
		"NUL":         "auth required pam_deny.so\x00\n",
		"a loop":      "auth include test\n", "a loop of substacks": "auth substack test\n",
		"many": strings.Repeat("@include sub\n", 300),
	} {
		for name, content := range map[string]string{"test": text, "sub": "#\n"} {
			if err := os.WriteFile(filepath.Join(l.dir(), name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if stack, err := (hostconf.Files{Root: l.root}).PAMStack("test", "auth"); err == nil {
			t.Errorf("%s is read as %v", name, stack)
		}
	}
}

// authLine finds an auth line and its module; includes finds one that includes a file.
var (
	authLine = regexp.MustCompile(`^(-?auth\s+(?:\[[^]]*\]|\S+)\s+)(\S+)(.*)$`)
	includes = regexp.MustCompile(`^(@include|-?auth\s+(?:include|substack))(\s+)(\S+)`)
)

// TestRealStacksAgreeWithLibpam has each stack of testdata give random answers, by
// pam_debug in the place of its modules, and has libpam go through it, too.
func TestRealStacksAgreeWithLibpam(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 120 {
		t.Fatalf("%d configurations, %v", len(archives), err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	l := newLibpam(t)
	granted, tried := 0, 0
	for _, archive := range archives {
		ar, err := txtar.ParseFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		for range 16 {
			// What archives include without having it.
			files := map[string]string{
				"common-auth":     "auth required pam_permit.so\n",
				"common-account":  "",
				"common-session":  "",
				"common-password": "",
			}
			for _, f := range ar.Files {
				if filepath.Base(filepath.Dir(f.Name)) == "pam.d" {
					files[filepath.Base(f.Name)] = l.answering(r, string(f.Data))
				}
			}
			if files["test"] = files["sshd"]; files["test"] == "" {
				break // the base's, which others have, too
			}
			real, ours := l.compare(t, files)
			if real != ours {
				t.Errorf("%s: libpam grants: %v, the walk: %v\n%s", archive, real, ours, files)
			}
			if tried++; real {
				granted++
			}
		}
	}
	if granted < tried/10 || granted > tried*9/10 {
		t.Errorf("%d of %d grant: the answers do not tell much", granted, tried)
	}
}

// answering returns the auth lines of a file of PAM's with random answers.
func (l libpam) answering(r *rand.Rand, text string) string {
	values := []string{
		"success",
		"success",
		"success",
		"ignore",
		"auth_err",
		"user_unknown",
		"authinfo_unavail",
		"perm_denied",
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case includes.MatchString(line):
			line = includes.ReplaceAllString(line, "${1}${2}"+l.dir()+"/${3}")
		case authLine.MatchString(line):
			line = authLine.ReplaceAllString(line, "${1}pam_debug.so auth="+values[r.IntN(len(values))])
		default:
			line = ""
		}
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// randomStack returns lines of pam_debug, and with the substack sub, unless that is
// empty.
func randomStack(r *rand.Rand, sub string) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	value := func() string {
		return pick("success", "success", "success", "success", "ignore", "auth_err", "user_unknown",
			"authinfo_unavail", "perm_denied", "maxtries", "new_authtok_reqd")
	}
	var b strings.Builder
	for range 1 + r.IntN(5) {
		control := pick("required", "requisite", "sufficient", "optional")
		if r.IntN(2) == 0 {
			action := func() string { return pick("ignore", "ok", "done", "bad", "die", "reset", "1", "2", "3") }
			control = fmt.Sprintf("[success=%s %s=%s ignore=%s default=%s]", action(), value(), action(), action(),
				action())
		}
		if sub != "" && r.IntN(5) == 0 {
			fmt.Fprintln(&b, "auth substack "+sub)
			continue
		}
		fmt.Fprintf(&b, "auth %s pam_debug.so auth=%s\n", control, value())
	}
	return b.String()
}
