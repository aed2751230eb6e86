package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

func ask(t testing.TB, socket string, q Question) (Verdict, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return AskDaemon(ctx, socket, q)
}

func TestVerdicts(t *testing.T) {
	posterntest.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "pam.sock")
	startServer(t, socket, Config{}, newCodes(code1), new(events))
	for _, c := range []struct {
		q    Question
		want Verdict
	}{
		{Question{Ask: AskCode, User: "alice", Code: "wrong"}, No},
		{Question{Ask: AskCode, User: "alice", Code: code1}, Yes},
		{Question{Ask: AskCode, User: "alice", Code: code1}, No},
		{Question{Ask: AskCode, User: "bare", Code: code1, NullOK: true}, NoFactor},
		{Question{Ask: AskAccount, User: "alice"}, Yes},
		{Question{Ask: AskAccount, User: "gone"}, No},
		{Question{Ask: AskAccount, User: "bare"}, NoFactor},
		{Question{Ask: NotifyOpened, User: "alice"}, Yes},
		{Question{Ask: NotifyClosed, User: "alice"}, Yes},
	} {
		if v, err := ask(t, socket, c.q); v != c.want || err != nil {
			t.Errorf("%+v: %d, %v; want %d", c.q, v, err, c.want)
		}
	}
}

// TestPromptsThatNobodyAnswers holds more prompts than questions are worked on at
// once, while a code is checked; one ends with a code, one without.
func TestPromptsThatNobodyAnswers(t *testing.T) {
	posterntest.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "pam.sock")
	var recorded events
	startServer(t, socket, Config{Conns: 2}, newCodes(code1), &recorded)
	prompts := make([]net.Conn, 5)
	for i := range prompts {
		c, err := net.Dial("unixpacket", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write(Question{Ask: NotifyAsked, Service: "sudo", User: "alice"}.Append(nil)); err != nil {
			t.Fatal(err)
		}
		prompts[i] = c
	}
	if v, err := ask(t, socket, Question{Ask: AskCode, User: "alice", Code: code1}); v != Yes || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := prompts[0].Write([]byte(codeGiven)); err != nil {
		t.Fatal(err)
	}
	if n, err := prompts[0].Read(make([]byte, 10)); n != 0 || err == nil {
		t.Errorf("an answer of %d bytes, %v", n, err)
	}
	prompts[1].Close()
	for len(recorded.list()) < 2 {
		posterntest.Pause(t)
	}
	if ev := recorded.list()[1]; ev.Kind != postern.EventPAMAuth || ev.Outcome != postern.Refused ||
		ev.Person != "alice" || ev.Details["method"] != "code" || ev.Details["service"] != "sudo" {
		t.Errorf("a prompt that was not answered is recorded as %+v", ev)
	}
}

// full is a timeline that takes nothing.
type full struct{}

func (full) Append(context.Context, ...postern.Event) error { return errors.New("disk full") }

func TestNobodyComesInUnrecorded(t *testing.T) {
	posterntest.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "pam.sock")
	startServer(t, socket, Config{}, newCodes(code1), full{})
	if v, err := ask(t, socket, Question{Ask: AskCode, User: "alice", Code: code1}); v != Unavailable || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

// TestClientsThatMisbehave has clients that say nothing, half of a question, or
// far too much, while an honest one is answered.
func TestClientsThatMisbehave(t *testing.T) {
	posterntest.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "pam.sock")
	startServer(t, socket, Config{Conns: 8, ReadTimeout: 300 * time.Millisecond}, newCodes(code1), new(events))
	question := Question{Ask: AskCode, User: "alice", Code: "x"}.Append(nil)
	dial := func() net.Conn {
		c, err := net.Dial("unixpacket", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	silent := make([]net.Conn, 50) // more than are worked on at once
	for i := range silent {
		silent[i] = dial()
	}
	for name, packet := range map[string][]byte{
		"half": question[:len(question)/2], "one byte": question[:1],
		"too long": append(slices.Clone(question), make([]byte, 2000)...),
		"100 kB":   make([]byte, 100_000), "trailing": append(slices.Clone(question), 0),
		"no user":      Question{Ask: AskCode}.Append(nil),
		"unknown kind": Question{Ask: 9, User: "alice"}.Append(nil), "unknown flag": func() []byte {
			q := slices.Clone(question)
			q[20] = 0x80
			return q
		}(),
	} {
		c := dial()
		if _, err := c.Write(packet); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := c.Read(make([]byte, 100)); n > 0 {
			t.Errorf("%s: an answer of %d bytes, %v", name, n, err)
		}
	}
	if v, err := ask(t, socket, Question{Ask: AskCode, User: "alice", Code: code1}); v != Yes || err != nil {
		t.Errorf("the honest client: %d, %v", v, err)
	}
	for _, c := range silent {
		if n, _ := c.Read(make([]byte, 100)); n > 0 {
			t.Error("a silent client is answered")
		}
	}
}

// TestGigabyte sends packets until the server hangs up, and looks at what that
// cost it.
func TestGigabyte(t *testing.T) {
	posterntest.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "pam.sock")
	startServer(t, socket, Config{}, newCodes(), new(events))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	packet := make([]byte, 64<<10)
	for sent := 0; sent < 1<<30; {
		c, err := net.Dial("unixpacket", socket)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil && sent < 1<<30 {
			_, err = c.Write(packet)
			sent += len(packet)
		}
		c.Close()
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 512<<20 {
		t.Errorf("1 GB sent costs %d bytes", grown)
	}
}

func TestManyConnections(t *testing.T) {
	posterntest.NeedRoot(t)
	socket := filepath.Join(t.TempDir(), "pam.sock")
	recorded := new(events)
	startServer(t, socket, Config{}, newCodes(), recorded)
	if _, err := ask(t, socket, Question{Ask: AskAccount, User: "alice"}); err != nil { // it serves
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	failed := make(chan error, 10_000)
	for range 50 {
		wg.Go(func() {
			for range 200 {
				if v, err := ask(t, socket, Question{Ask: AskCode, User: "alice", Code: "wrong"}); v != No ||
					err != nil {
					failed <- fmt.Errorf("%d, %w", v, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(failed); n > 0 {
		t.Errorf("%d of 10000 questions are not answered, such as: %v", n, <-failed)
	}
	for runtime.NumGoroutine() > before {
		posterntest.Pause(t)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(entries) > 100 {
		t.Errorf("%d files are open", len(entries))
	}
	if n := len(recorded.list()); n == 0 || n > 10 {
		t.Errorf("%d entries stand for 10000 refusals", n)
	}
}

// TestOthersThanRootAreNotAnswered has another user's process ask, on a socket
// that was opened to it by mistake. That process is this test again.
func TestOthersThanRootAreNotAnswered(t *testing.T) {
	if socket := os.Getenv("POSTERN_ASK"); socket != "" {
		askOnce(t, socket)
		return
	}
	posterntest.NeedRoot(t)
	dir := posterntest.OpenDir(t)
	users := filepath.Join(dir, "users.sock")
	startServer(t, users, Config{Users: true}, newCodes(code1), new(events))
	root := filepath.Join(dir, "root.sock")
	startServer(t, root, Config{}, newCodes(code1), new(events))
	for _, s := range []struct {
		socket, user string
		chmod        bool
		want         string
	}{
		{root, "nobody", false, "refused"},
		{root, "nobody", true, "refused"},
		{users, "root", true, "refused"}, // another user's account
		{users, "nobody", true, "yes"},
	} {
		if s.chmod {
			if err := os.Chmod(s.socket, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = []string{"POSTERN_ASK=" + s.socket, "POSTERN_USER=" + s.user}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "answer: "+s.want+"\n") {
			t.Errorf("%+v: %v: %s", s, err, out)
		}
	}
}

// askOnce is what the other user's process does.
func askOnce(t *testing.T, socket string) {
	v, err := ask(t, socket, Question{Ask: AskCode, User: os.Getenv("POSTERN_USER"), Code: code1})
	answer := "refused"
	if err == nil && v == Yes {
		answer = "yes"
	}
	fmt.Println("answer: " + answer)
}

func TestListenReplacesTheDeadAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "sock")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o600); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a second server: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	l, err = Listen(path, 0o600)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o600); err == nil {
		t.Error("an ordinary file is replaced")
	}
}

func FuzzParseQuestion(f *testing.F) {
	f.Add(Question{
		Ask: AskCode, User: "alice", Service: "sshd", Host: "192.0.2.7", TTY: "ssh", Code: code1,
		NullOK: true,
	}.Append(nil))
	f.Add(Question{Ask: AskAccount, User: "alice"}.Append(nil))
	f.Add(Question{Version: 3, Ask: NotifyOpened, User: "root", Service: "sudo", RequestedBy: "alice"}.Append(nil))
	f.Add([]byte("PQ1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseQuestion(b)
		if err == nil && string(q.Append(nil)) != string(b) {
			t.Errorf("%q is read as %+v, which is written differently", b, q)
		}
	})
}
