package rescue

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
)

// server is a server that answers everything by one error.
type server struct{ err error }

func (s server) CheckCode(context.Context, sshd.Attempt) (sshd.Proof, error) {
	return sshd.Proof{}, s.err
}
func (s server) CheckAccount(context.Context, string) (string, error) { return "", s.err }

// recorder keeps events.
type recorder struct{ events []postern.Event }

func (r *recorder) Append(_ context.Context, events ...postern.Event) error {
	r.events = append(r.events, events...)
	return nil
}

func kept(t *testing.T, n int) (codes []string, set Set, f *File) {
	t.Helper()
	codes, set = New(n, time.Now())
	f = &File{Path: filepath.Join(t.TempDir(), "rescue.json")}
	if err := f.Keep(set); err != nil {
		t.Fatal(err)
	}
	return codes, set, f
}

// TestACodeIsUsedOnce tries each code of a set, again after the set came again from the
// server, and after the process was started anew.
func TestACodeIsUsedOnce(t *testing.T) {
	codes, set, f := kept(t, 2)
	if id, left, err := f.Use(strings.ToLower(strings.ReplaceAll(codes[1], "-", " "))); id != set.ID || left != 1 ||
		err != nil {
		t.Fatalf("a code: %q, %d left, %v", id, left, err)
	}
	if err := f.Keep(set); err != nil {
		t.Fatal(err)
	}
	again := &File{Path: f.Path}
	for _, wrong := range []string{codes[1], "RESCUE-AAAA-AAAA-AAAA-AAAA", "", "cccccccccccc"} {
		if _, _, err := again.Use(wrong); postern.CodeOf(err) != postern.Denied {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	next, other := New(1, time.Now())
	if err := again.Keep(other); err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Use(codes[0]); postern.CodeOf(err) != postern.Denied {
		t.Errorf("a code of a set that was replaced: %v", err)
	}
	set.Made = set.Made.Add(-time.Second)
	if err := again.Keep(set); err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Use(codes[1]); postern.CodeOf(err) != postern.Denied {
		t.Errorf("a used code of an older set that came again: %v", err)
	}
	if _, _, err := again.Use(next[0]); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", info.Mode(), err)
	}
	if text, err := os.ReadFile(f.Path); err != nil || strings.Contains(string(text), next[0]) {
		t.Errorf("the file holds a code: %v", err)
	}
}

func TestACodeIsUsedOnceAtATime(t *testing.T) {
	codes, _, f := kept(t, 1)
	var accepted atomic.Int32
	var trying sync.WaitGroup
	for range 4 {
		trying.Go(func() {
			if _, _, err := f.Use(codes[0]); err == nil {
				accepted.Add(1)
			}
		})
	}
	trying.Wait()
	if n := accepted.Load(); n != 1 {
		t.Errorf("accepted %d times", n)
	}
}

// TestACodeThatCannotBeUsedUpIsRefused has a full disk: nothing is accepted that could be
// accepted again after a crash.
func TestACodeThatCannotBeUsedUpIsRefused(t *testing.T) {
	dir := posterntest.Mounted(t, "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs")
	codes, set := New(1, time.Now())
	f := &File{Path: filepath.Join(dir, "rescue.json")}
	if err := f.Keep(set); err != nil {
		t.Fatal(err)
	}
	posterntest.Fill(t, filepath.Join(dir, "full"))
	if _, _, err := f.Use(codes[0]); err == nil {
		t.Error("a code was accepted that could not be used up")
	}
	if err := os.Remove(filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Use(codes[0]); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// killed is a recorder whose process ends before it has recorded anything.
type killed struct{}

func (killed) Append(context.Context, ...postern.Event) error { panic(killed{}) }

// TestACodeIsUsedAlsoIfItsAnswerIsLost ends the process between the use of a code and its
// answer: the next one refuses it, and accepts the other.
func TestACodeIsUsedAlsoIfItsAnswerIsLost(t *testing.T) {
	codes, _, f := kept(t, 2)
	c := &Checker{
		Server: server{postern.Errorf(postern.Unavailable, "no answer")}, Codes: f, Record: killed{},
		Log: slog.New(slog.DiscardHandler),
	}
	func() {
		defer func() {
			if _, ok := recover().(killed); !ok {
				t.Error("it did not come to the end")
			}
		}()
		event := postern.Event{Kind: postern.EventSSHAuth, Details: map[string]string{}}
		_, _ = c.CheckCode(t.Context(), sshd.Attempt{User: "alice", Code: codes[0], Event: event})
	}()
	seen := &recorder{}
	c = &Checker{Server: c.Server, Codes: &File{Path: f.Path}, Record: seen, Log: c.Log}
	for i, want := range []postern.Code{postern.Denied, 0} {
		_, err := c.CheckCode(t.Context(), sshd.Attempt{User: "alice", Code: codes[i]})
		if (err == nil) != (want == 0) || err != nil && postern.CodeOf(err) != want {
			t.Errorf("code %d after the end: %v", i, err)
		}
	}
}

// TestOnlyWithoutAServer accepts rescue codes while no server answers, and then alone.
func TestOnlyWithoutAServer(t *testing.T) {
	codes, set, f := kept(t, 3)
	seen := &recorder{}
	with := func(err error) *Checker {
		return &Checker{Server: server{err}, Codes: f, Record: seen, Log: slog.New(slog.DiscardHandler)}
	}
	unavailable := postern.Errorf(postern.Unavailable, "the server does not answer")
	attempt := func(code string) sshd.Attempt {
		return sshd.Attempt{User: "alice", Code: code, Event: postern.Event{
			Kind: postern.EventSSHAuth, Outcome: postern.OK, Details: map[string]string{"method": "code"},
		}}
	}
	for _, refusal := range []postern.Code{postern.Denied, postern.NotFound, postern.TooMany, postern.Internal} {
		if _, err := with(postern.Errorf(refusal, "no")).CheckCode(t.Context(), attempt(codes[0])); err == nil {
			t.Errorf("accepted although the server says %v", refusal)
		}
	}
	c := with(unavailable)
	if _, err := c.CheckAccount(t.Context(), "alice"); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("an account without a server: %v", err)
	}
	if _, err := c.CheckCode(t.Context(), attempt("vvccccbdefgh")); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("a one-time password without a server: %v", err)
	}
	if _, err := c.CheckCode(t.Context(), attempt(codes[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CheckAccount(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if _, err := c.CheckAccount(t.Context(), "bob"); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("another account: %v", err)
	}
	if len(seen.events) != 1 || seen.events[0].Details["method"] != Method ||
		seen.events[0].Details["rescue"] != set.ID+", 2 left" {
		t.Errorf("recorded %+v", seen.events)
	}
}
