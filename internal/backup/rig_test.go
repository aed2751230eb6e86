package backup_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/otp"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a state with software tokens, whose codes are accepted and noted.
type rig struct {
	t      *testing.T
	dir    string
	st     *state.State
	tokens []*otp.SoftToken

	mu   sync.Mutex
	used []string // codes that were accepted
}

func newRig(t *testing.T, tokens int) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "state")}
	st, err := state.Create(t.Context(), r.dir)
	must(t, err)
	r.st = st
	t.Cleanup(func() { r.st.Close() })
	must(t, st.Store.People().AddPerson(t.Context(), postern.Person{Name: "alice"}))
	r.addTokens(tokens)
	return r
}

func (r *rig) addTokens(n int) {
	r.t.Helper()
	var keys []*otp.Key
	for range n {
		token := otp.NewSoftToken()
		must(r.t, token.PowerUp(time.Now()))
		r.tokens = append(r.tokens, token)
		keys = append(keys, &otp.Key{
			PublicID: token.PublicID, Secret: &token.Secret, Person: "alice", Last: otp.Never,
		})
	}
	must(r.t, r.st.Store.OTP().AddKeys(r.t.Context(), postern.Actor{}, keys, false))
}

// touch makes the next code of a token.
func (r *rig) touch(token *otp.SoftToken) string {
	r.t.Helper()
	if token.Use > 250 {
		must(r.t, token.PowerUp(time.Now()))
	}
	code, err := token.Touch(time.Now())
	must(r.t, err)
	return code.Modhex()
}

// accept presents a code, and reports whether it was accepted.
func (r *rig) accept(ctx context.Context, code string) (bool, error) {
	keys := r.st.Store.OTP()
	key, last, err := otp.OpenCode(ctx, keys, code)
	if err != nil {
		return false, err
	}
	last.Time = time.Now()
	verdict, _, err := keys.Accept(ctx, otp.Use{
		PublicID: key.PublicID, Last: last,
		Events: []postern.Event{{Kind: postern.EventOTP, Person: "alice", Object: key.PublicID}},
	})
	return verdict == otp.Accepted, err
}

// use has the next code of a token accepted.
func (r *rig) use(token *otp.SoftToken) {
	r.t.Helper()
	code := r.touch(token)
	ok, err := r.accept(r.t.Context(), code)
	must(r.t, err)
	if !ok {
		r.t.Error("a fresh code was refused")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = append(r.used, code)
}

// load uses all tokens at once until stop is called.
func (r *rig) load() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, token := range r.tokens {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					r.use(token)
				}
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// wait waits until n more codes were accepted.
func (r *rig) wait(n int) {
	r.t.Helper()
	count := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.used)
	}
	for want := count() + n; count() < want; {
		if r.t.Failed() {
			r.t.FailNow()
		}
		time.Sleep(time.Millisecond)
	}
}

// leave closes the state and moves its directory away.
func (r *rig) leave() {
	r.t.Helper()
	must(r.t, r.st.Close())
	must(r.t, os.Rename(r.dir, filepath.Join(r.t.TempDir(), "gone")))
}

func (r *rig) reopen() {
	r.t.Helper()
	r.st.Close()
	st, err := state.Open(r.t.Context(), r.dir)
	must(r.t, err)
	r.st = st
}

// newer returns how many of the used codes the database does not know of.
func (r *rig) newer() int {
	r.t.Helper()
	n := 0
	for _, code := range r.used {
		key, last, err := otp.OpenCode(r.t.Context(), r.st.Store.OTP(), code)
		must(r.t, err)
		before, err := r.st.Store.OTP().Counter(r.t.Context(), key.PublicID)
		must(r.t, err)
		if last.Seq > before.Seq {
			n++
		}
	}
	return n
}

// replay presents all codes that were accepted before: none is now.
func (r *rig) replay() {
	r.t.Helper()
	for i, code := range r.used {
		if ok, _ := r.accept(r.t.Context(), code); ok {
			r.t.Fatalf("code %d of %d was accepted again", i, len(r.used))
		}
	}
}

// enable enables each key by a code of its token.
func (r *rig) enable() {
	r.t.Helper()
	for _, token := range r.tokens {
		code := r.touch(token)
		must(r.t, r.st.Store.OTP().EnableWithCode(r.t.Context(), postern.Actor{}, token.PublicID, code))
		r.used = append(r.used, code)
	}
}

func (r *rig) backup(o backup.Options) backup.Made {
	r.t.Helper()
	made, err := backup.Make(r.t.Context(), r.st, o)
	must(r.t, err)
	return made
}

var event = postern.Event{Kind: postern.EventOTPRestored}

func (r *rig) restore(path string) backup.Restored {
	r.t.Helper()
	restored, err := backup.Restore(r.t.Context(), path, r.dir, nil, event)
	must(r.t, err)
	r.reopen()
	return restored
}

// empty checks that a directory has nothing but the named files, not even hidden ones.
func empty(t *testing.T, dir string, but ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(but)
	if got, want := strings.Join(names, " "), strings.Join(but, " "); got != want {
		t.Errorf("%s has %q, not %q", dir, got, want)
	}
}

// TestMain lets the test binary be a process that is killed: "make STATE TO", "restore
// FILE STATE" or "check FILE".
func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv("BACKUP_TEST")); len(args) > 0 {
		if err := child(args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(args []string) error {
	ctx := context.Background()
	if args[0] == "restore" {
		_, err := backup.Restore(ctx, args[1], args[2], nil, event)
		return err
	}
	if args[0] == "check" {
		_, err := backup.Check(ctx, args[1], nil)
		return err
	}
	st, err := state.Open(ctx, args[1])
	if err != nil {
		return err
	}
	defer st.Close()
	_, err = backup.Make(ctx, st, backup.Options{To: args[2]})
	return err
}

// changes are the calls that change directories.
const changes = "rename,renameat,renameat2,link,linkat,mkdir,mkdirat,unlink,unlinkat"

// killed runs such a process until its nth call of those that change directories, where
// the kernel ends it. It reports false if there is no nth.
func killed(t *testing.T, strace string, n int, args string) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-o", "/dev/null",
		"-e", "trace="+changes, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", changes, n), os.Args[0])
	cmd.Env = append(os.Environ(), "BACKUP_TEST="+args)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if cmd.ProcessState.ExitCode() == 1 {
		t.Fatalf("%s: %s", args, out)
	}
	return true
}
