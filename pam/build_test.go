package pam

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// Results of PAM, from _pam_types.h.
const (
	success         = 0
	serviceErr      = 3
	permDenied      = 6
	authErr         = 7
	authinfoUnavail = 9
	sessionErr      = 14
	convErr         = 19
)

const (
	yes         = 1
	no          = 2
	noFactor    = 3
	unavailable = 4
)

const asked = 5 // a kind of question

// authenticate builds the program that drives libpam.
func authenticate(t testing.TB, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "authenticate")
	args := append([]string{
		"-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-o", out,
		"testdata/authenticate.c", "-lpam",
	}, flags...)
	if b, err := exec.Command(posterntest.Need(t, "cc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// daemon answers each question on path with what reply returns; nil hangs, an
// empty answer hangs up. How each prompt for a code ended goes to prompts: with
// what packet, "" for none.
func daemon(t testing.TB, path string, reply func(question []byte) []byte, prompts ...chan<- string) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() {
		close(ended)
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				q := make([]byte, 2048)
				n, err := c.Read(q)
				if err != nil {
					return
				}
				if q[3] == asked {
					n, _ := c.Read(q)
					for _, p := range prompts {
						p <- string(q[:n])
					}
					return
				}
				a := reply(q[:n])
				if a == nil {
					<-ended
					return
				}
				_, _ = c.Write(a)
			})
		}
	})
}

// answer is the right answer to a question, and says that all that was typed is
// the code.
func answer(question []byte, verdict byte) []byte {
	return answerCode(question, verdict, len(fields(question)[4]))
}

// answerCode says that the last so many bytes of what was typed are the code.
func answerCode(question []byte, verdict byte, code int) []byte {
	return append(append([]byte("PA3"), question[3:20]...), verdict, byte(code))
}

func always(verdict byte) func([]byte) []byte {
	return func(q []byte) []byte { return answer(q, verdict) }
}

// fields returns service, user, host, terminal, code and requesting user.
func fields(q []byte) []string {
	var out []string
	for q = q[21:]; len(q) > 0; q = q[1+int(q[0]):] {
		out = append(out, string(q[1:1+int(q[0])]))
	}
	return out
}

// stack writes a PAM service named "test" that consists of the module, and of
// the lines given, and returns its directory.
func stack(t testing.TB, module, socket, options string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	for _, kind := range []string{"auth", "account", "session"} {
		fmt.Fprintf(&b, "%s required %s socket=%s %s\n", kind, module, socket, options)
	}
	for _, line := range more {
		fmt.Fprintln(&b, line)
	}
	if err := os.WriteFile(filepath.Join(dir, "test"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func run(t testing.TB, program, confdir, user string, answers ...string) string {
	t.Helper()
	args := append([]string{confdir, "test", user, "1"}, answers...)
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

func TestDenyUnlessTheDaemonSaysYes(t *testing.T) {
	posterntest.NeedRoot(t)
	t.Parallel()
	sanitize := "-fsanitize=address,undefined"
	program := authenticate(t, sanitize, "-fno-sanitize-recover=all")
	module := posterntest.PAMModule(t, sanitize, "-fno-sanitize-recover=all", "-U_FORTIFY_SOURCE", "-Wl,-z,undefs")
	for _, c := range []struct {
		name          string
		reply         func([]byte) []byte
		options       string
		auth, account int
	}{
		{"yes", always(yes), "", success, success},
		{"no", always(no), "", authErr, permDenied},
		// ignored by account, and libpam denies where no module allows
		{"no factor", always(noFactor), "", authErr, permDenied},
		{"no factor, nullok", always(noFactor), "nullok", permDenied, permDenied},
		{"no, nullok", always(no), "nullok", authErr, permDenied},
		{"unavailable", always(unavailable), "", authinfoUnavail, authinfoUnavail},
		{"unavailable, nullok", always(unavailable), "nullok", authinfoUnavail, authinfoUnavail},
		{"no verdict", always(0), "", authinfoUnavail, authinfoUnavail},
		{"unknown verdict", always(255), "", authinfoUnavail, authinfoUnavail},
		{"hangs", func([]byte) []byte { return nil }, "timeout=1", authinfoUnavail, authinfoUnavail},
		{"hangs up", func([]byte) []byte { return []byte{} }, "", authinfoUnavail, authinfoUnavail},
		{"another nonce", func(q []byte) []byte {
			a := answer(q, yes)
			a[8]++
			return a
		}, "", authinfoUnavail, authinfoUnavail},
		{"another kind", func(q []byte) []byte {
			a := answer(q, yes)
			a[3]++
			return a
		}, "", authinfoUnavail, authinfoUnavail},
		{"another protocol", func(q []byte) []byte {
			return append([]byte("HTTP"), answer(q, yes)[4:]...)
		}, "", authinfoUnavail, authinfoUnavail},
		{"the protocol before", func(q []byte) []byte {
			return append([]byte("PA2"), answer(q, yes)[3:]...)
		}, "", authinfoUnavail, authinfoUnavail},
		{"no code", func(q []byte) []byte { return answerCode(q, yes, 0) }, "", authinfoUnavail, success},
		{"more code than typed", func(q []byte) []byte { return answerCode(q, yes, 5) }, "", authinfoUnavail, success},
		{"short", func(q []byte) []byte { return answer(q, yes)[:20] }, "", authinfoUnavail, authinfoUnavail},
		{"long", func(q []byte) []byte { return append(answer(q, yes), 1) }, "", authinfoUnavail, authinfoUnavail},
		{"huge", func(q []byte) []byte {
			return append(answer(q, yes), make([]byte, 100000)...)
		}, "", authinfoUnavail, authinfoUnavail},
		{"unknown option", always(yes), "debug", serviceErr, serviceErr},
		{"timeout of none", always(yes), "timeout=", serviceErr, serviceErr},
		{"timeout for ever", always(yes), "timeout=0", serviceErr, serviceErr},
		{"timeout too long", always(yes), "timeout=61", serviceErr, serviceErr},
		{"timeout of words", always(yes), "timeout=5s", serviceErr, serviceErr},
		{"socket relative", always(yes), "socket=run/sock", serviceErr, serviceErr},
		{"socket too long", always(yes), "socket=/" + strings.Repeat("x", 200), authinfoUnavail, authinfoUnavail},
		{"socket missing", always(yes), "socket=/nonexistent/sock", authinfoUnavail, authinfoUnavail},
		{"socket no socket", always(yes), "socket=/etc/passwd", authinfoUnavail, authinfoUnavail},
		{"listed", always(yes), "users=bob,alice", success, success},
		{"listed, first", always(yes), "users=alice,bob", success, success},
		{"not listed", always(yes), "users=malice,alicea,ali", permDenied, permDenied},
		{"no user listed", always(yes), "users=", permDenied, permDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "sock")
			daemon(t, socket, c.reply)
			got := run(t, program, stack(t, module, socket, c.options), "alice", "code")
			var auth, cred, account int
			if _, err := fmt.Sscanf(got, "auth=%d cred=%d account=%d", &auth, &cred, &account); err != nil {
				t.Fatalf("%s: %v", got, err)
			}
			if auth != c.auth || account != c.account || (cred == success) != (auth == success) {
				t.Errorf("got %s, want auth=%d account=%d", got, c.auth, c.account)
			}
		})
	}
}

func TestQuestionCarriesWhatPAMKnows(t *testing.T) {
	posterntest.NeedRoot(t)
	t.Parallel()
	program, module := authenticate(t), posterntest.PAMModule(t)
	yubi := "vvccccbdefghcbdefghijklnrtuvcbdefghijklnrtuv"
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		name, options, typed string
		code                 string // the end of it that the daemon takes for the code
		password             string
	}{
		{"code alone", "", yubi, yubi, ""},
		{"password and code", "", "s3cret" + yubi, yubi, "s3cret"},
		{"a long password and a short code", "", long + yubi[12:], yubi[12:], long},
		{"code and a blank", "", "s3cret" + yubi + " ", yubi + " ", "s3cret"},
		{"password and digits", "combined", "s3cret123456", "123456", "s3cret"},
		{"one letter", "", "x", "x", ""},
		{"nothing", "", "", "", ""},
		{"longest", "", long[1:], long[1:], ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "sock")
			questions, prompted := make(chan []string, 10), make(chan string, 10)
			daemon(t, socket, func(q []byte) []byte {
				questions <- append(fields(q), fmt.Sprint(q[20]))
				return answerCode(q, yes, len(c.code))
			}, prompted)
			token := filepath.Join(t.TempDir(), "token")
			confdir := stack(t, module, socket, c.options+" [prompt=Touch it: ]",
				"auth optional pam_exec.so expose_authtok quiet /bin/dd status=none of="+token)
			sent := c.typed[max(0, len(c.typed)-255):] // the end is enough
			flags := map[string]string{"": "0", "combined": "2"}[c.options]
			answers := []string{c.typed}
			prompts := "Touch it: "
			if c.password == "" {
				answers, prompts = append(answers, "asked again"), "Touch it: Password: "
			}
			if got := run(t, program, confdir, "alice",
				answers...); got != "auth=0 cred=0 account=0 opened=0 closed=0 prompts="+prompts {
				t.Error(got)
			}
			if got, want := <-questions, []string{
				"test", "alice", "192.0.2.7", "", sent, "carol",
				flags,
			}; strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("asked %q, want %q", got, want)
			}
			if end := <-prompted; end != "PD1" {
				t.Errorf("the prompt ends with %q", end)
			}
			seen, _ := os.ReadFile(token)
			if got, want := string(bytes.TrimRight(seen, "\x00")), cmp.Or(c.password, "asked again"); got != want {
				t.Errorf("the next module sees the password %q, want %q", got, want)
			}
		})
	}
	t.Run("too long to ask", func(t *testing.T) {
		t.Parallel()
		socket := filepath.Join(t.TempDir(), "sock")
		daemon(t, socket, always(yes))
		if got := run(t, program, stack(t, module, socket, ""), long, "code"); !strings.HasPrefix(got,
			fmt.Sprintf("auth=%d ", authinfoUnavail)) {
			t.Error(got)
		}
	})
	t.Run("no code is typed", func(t *testing.T) {
		t.Parallel()
		socket := filepath.Join(t.TempDir(), "sock")
		prompted := make(chan string, 10)
		daemon(t, socket, always(yes), prompted)
		if got := run(t, program, stack(t, module, socket, ""), "alice"); !strings.HasPrefix(got,
			fmt.Sprintf("auth=%d ", convErr)) {
			t.Error(got)
		}
		if end := <-prompted; end != "" {
			t.Errorf("the prompt ends with %q", end)
		}
	})
}

// TestImpostor has a user who is not root listen where the daemon should. That
// user's process is this test again.
func TestImpostor(t *testing.T) {
	if os.Getenv("POSTERN_LISTEN") == "1" {
		listenAndSayYes(t)
		return
	}
	posterntest.NeedRoot(t)
	t.Parallel()
	program, module := authenticate(t), posterntest.PAMModule(t)
	for _, c := range []struct {
		name       string
		mode       os.FileMode
		uid        int // the socket file's
		listenedBy uint32
		auth       int
	}{
		{"root listens", 0o600, 0, 0, success},
		{"user nobody listens", 0o600, 0, 65534, authinfoUnavail},
		{"socket of user nobody", 0o600, 65534, 0, authinfoUnavail},
		{"socket open to all", 0o622, 0, 0, authinfoUnavail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(filepath.Dir(module), strings.ReplaceAll(c.name, " ", "-"))
			l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			f, err := l.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := os.Chmod(socket, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(socket, c.uid, 0); err != nil {
				t.Fatal(err)
			}
			// The kernel remembers who called listen: let another user do it again.
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestImpostor$")
			cmd.Env = []string{"POSTERN_LISTEN=1"}
			cmd.ExtraFiles = []*os.File{f}
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Pdeathsig:  syscall.SIGKILL,
				Credential: &syscall.Credential{Uid: c.listenedBy, Gid: c.listenedBy},
			}
			ready, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			if _, err := ready.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
			if got, want := run(t, program, stack(t, module, socket, "timeout=5"), "alice", "code"),
				fmt.Sprintf("auth=%d ", c.auth); !strings.HasPrefix(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// listenAndSayYes is what the impostor's process does.
func listenAndSayYes(t *testing.T) {
	if err := syscall.Listen(3, 10); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Print("!")
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		q := make([]byte, 2048)
		if n, err := c.Read(q); err == nil && n > 20 {
			_, _ = c.Write(answer(q[:n], yes))
		}
		c.Close()
	}
}

func TestValgrindFindsNothing(t *testing.T) {
	posterntest.NeedRoot(t)
	t.Parallel()
	valgrind := posterntest.Need(t, "valgrind")
	program, module := authenticate(t), posterntest.PAMModule(t)
	socket := filepath.Join(t.TempDir(), "sock")
	var n atomic.Int32
	daemon(t, socket, func(q []byte) []byte { return answer(q, byte(n.Add(1)%4+1)) })
	confdir := stack(t, module, socket, "")
	for _, answers := range [][]string{{"code"}, {"passwordvvccccbdefghcbdefghijklnrtuvcbdefghijklnrtuv"}, {}} {
		args := append([]string{
			"--quiet", "--error-exitcode=99", "--leak-check=full",
			"--errors-for-leak-kinds=definite,indirect", program, confdir, "test", "alice", "4",
		}, answers...)
		if out, err := exec.Command(valgrind, args...).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// TestNothingLeaks goes through many logins in one process.
func TestNothingLeaks(t *testing.T) {
	posterntest.NeedRoot(t)
	t.Parallel()
	times := "500"
	if os.Getenv("POSTERN_SOAK") == "1" {
		times = "10000"
	}
	program, module := authenticate(t), posterntest.PAMModule(t)
	for name, c := range map[string]struct {
		reply   func([]byte) []byte
		answers []string
	}{
		"granted": {always(yes), []string{"code"}},
		"denied":  {always(no), []string{"code"}},
		"no word": {func([]byte) []byte { return []byte{} }, []string{"code"}},
		"no code": {always(yes), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "sock")
			daemon(t, socket, c.reply)
			confdir := stack(t, module, socket, "")
			cmd := exec.Command(program, append([]string{confdir, "test", "alice", times}, c.answers...)...)
			// what is cached there counts as in use
			cmd.Env = append(os.Environ(), "GLIBC_TUNABLES=glibc.malloc.tcache_count=0")
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != "leaked files=0 bytes=0\n" {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestExportsOnlyPAM keeps the module's own names to itself.
func TestExportsOnlyPAM(t *testing.T) {
	out, err := exec.Command(posterntest.Need(t, "nm"), "-D", "--defined-only", posterntest.PAMModule(t)).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if name := strings.Fields(line)[2]; !strings.HasPrefix(name, "pam_sm_") {
			t.Errorf("exports %s", name)
		}
	}
}
