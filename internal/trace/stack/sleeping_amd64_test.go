package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestSleepingThreads: a thread sleeps in libc, which does not save the frame pointer that
// the frames of its callers are computed from: testdata/sleeps.c.
func TestSleepingThreads(t *testing.T) {
	program := filepath.Join(t.TempDir(), "sleeps")
	cc := exec.Command(posterntest.Need(t, "cc"), "-O2", "-fno-omit-frame-pointer",
		"-fno-optimize-sibling-calls", "-fstack-protector-all", "-fcf-protection", "-o", program, "testdata/sleeps.c",
		"-lpthread")
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	const callers = " middle middle middle outer"
	for _, c := range []struct{ args, want, last string }{
		{"plain", "sleeper plain" + callers + " main", "_start"},
		{"plain thread", "sleeper plain" + callers, "clone3"},
		{"grows", "grows", "grows"},       // its frame's address cannot be told
		{"smashed", "smashed", "smashed"}, // what follows is no stack
	} {
		t.Run(c.args, func(t *testing.T) {
			u := New(Config{})
			defer u.Close()
			names := asleep(t, u, strings.Fields(c.want)[0], program, strings.Fields(c.args)...)
			var own []string
			for _, name := range names {
				if strings.Contains(" sleeper plain grows smashed middle outer main ", " "+name+" ") {
					own = append(own, name)
				}
			}
			if got := strings.Join(own, " "); got != c.want || names[len(names)-1] != c.last {
				t.Errorf("got %q, want %q and at last %q", names, c.want, c.last)
			}
		})
	}
}

// asleep starts a program, and returns the names of the frames of its thread that sleeps in a function.
func asleep(t *testing.T, u *Unwinder, in, program string, args ...string) []string {
	t.Helper()
	cmd := exec.Command(program, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			thread, err := u.Sleeping(cmd.Process.Pid, tid)
			if err != nil || thread.In(in) < 0 {
				continue
			}
			var names []string
			for _, f := range thread.Frames {
				names = append(names, f.Symbol)
			}
			return names
		}
	}
	t.Fatal("no thread sleeps in " + in)
	return nil
}
