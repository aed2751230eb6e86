package stack_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/stack"
)

// TestTracedStacks traces a real libvirtd and a virsh that calls it: every stack must be
// complete, from the probe to the program's or the thread's start, also through the
// event loop's dispatches, whose returns are watched. Their addresses are gdb's: TestAgainstGDB.
func TestTracedStacks(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	defer posterntest.TraceAlone(t)()
	u := stack.New(stack.Config{})
	defer u.Close()
	c := &stacks{t: t, u: u, daemon: l.PID}
	traceStacks(t, l, u, capture.RPC|capture.Monitor|capture.Loop, capture.NewAsync(c, nil), func() {
		if out, err := l.Virsh(
			"start vm1; domuuid vm1; dommemstat vm1; domstats; dumpxml vm1; destroy vm1"); err != nil {
			t.Errorf("virsh: %v: %s", err, out)
		}
	})
	t.Logf("%d of %d stacks complete; %d of %d of virsh end at its start", c.complete, c.all, c.started, c.virsh)
	if c.all < 300 || c.virsh < 40 || 100*c.complete < 99*c.all || 100*c.started < 99*c.virsh {
		t.Error("too few")
	}
}

// traceStacks runs do while a session hands events with their stacks, for u to unwind, to
// a sink.
func traceStacks(
	t *testing.T, l *posterntest.Libvirtd, u *stack.Unwinder, what capture.What, sink *capture.Async, do func(),
) {
	t.Helper()
	s, err := capture.Start(capture.Config{What: what, Stack: true, Stacked: u.Prepare})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Watch(l.PID); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- errors.Join(s.Run(ctx, sink), sink.Close()) }()
	do()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// stacks is a sink that unwinds the stack of each event.
type stacks struct {
	t                             *testing.T
	u                             *stack.Unwinder
	daemon                        int
	all, complete, virsh, started int
}

func (c *stacks) Idle() error { return nil }

func (c *stacks) Event(e *event.Event) error {
	if e.Kind >= event.Gone || e.PID != c.daemon && e.Comm != "virsh" || e.Kind == event.HandleDone ||
		e.Kind == event.TimeoutDone {
		return nil
	}
	frames, err := c.u.Frames(e.PID, e.Regs, e.Stack, e.Return)
	c.all++
	if err == nil {
		c.complete++
	} else {
		c.t.Logf("%s in %s: %v after %d frames", e.Probe, e.Comm, err, len(frames))
	}
	if e.Comm == "virsh" {
		c.virsh++
		if n := len(frames); err == nil && strings.HasSuffix(frames[n-1].Module, "/virsh") {
			c.started++
		}
	}
	return nil
}

// TestWriteUpsStack reproduces the write-up's last example, a raw line with the
// client's stack, for today's virsh.
func TestWriteUpsStack(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	defer posterntest.TraceAlone(t)()
	u := stack.New(stack.Config{})
	defer u.Close()
	var out bytes.Buffer
	w, err := format.New(&out, format.Config{Format: format.Raw})
	if err != nil {
		t.Fatal(err)
	}
	traceStacks(t, l, u, capture.RPC, capture.NewAsync(w, u.Unwind), func() {
		for range 3 { // on a busy machine one may be gone before its maps are read
			if out, err := l.Virsh("domuuid", "vm1"); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
	const frame = `0x[0-9a-f]+ : \S+\+0x[0-9a-f]+/0x[0-9a-f]+ \[/\S+\]\n`
	want := regexp.MustCompile(
		`(?m)^client=0x[0-9a-f]+ len=36 program=536903814 version=1 procedure=66 type=1 status=0 serial=0\n(` + frame +
			`)+` +
			`0x[0-9a-f]+ : virNetClientSendWithReply\+0x[0-9a-f]+/0x[0-9a-f]+ \[/\S*libvirt\.so[.0-9]*\]\n` +
			`0x[0-9a-f]+ : virNetClientProgramCall\+0x[0-9a-f]+/0x[0-9a-f]+ \[/\S*libvirt\.so[.0-9]*\]\n(` + frame +
			`)+` +
			`0x[0-9a-f]+ : virConnectOpenAuth\+0x[0-9a-f]+/0x[0-9a-f]+ \[/\S*libvirt\.so[.0-9]*\]\n` +
			`(0x[0-9a-f]+ : \S+ \[/\S*/virsh\]\n)+`)
	if !want.MatchString(out.String()) {
		t.Errorf("got:\n%s", out.String())
	}
}

// TestHiddenFiles: the file of a process can be in another mount namespace,
// replaced or removed, and the process can have exited, once it was watched.
func TestHiddenFiles(t *testing.T) {
	posterntest.NeedRoot(t)
	dir := t.TempDir()
	sleep, err := os.ReadFile(posterntest.Need(t, "sleep"))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "hidden")
	if err := os.WriteFile(program, sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"namespace": `mount -t tmpfs none "$D/room" && cp "$D/hidden" "$D/room/x" && echo ready &&
			exec "$D/room/x" 1000`,
		"removed": `cp "$D/hidden" "$D/gone" && exec 3<"$D/gone" && (sleep 0.1; rm "$D/gone"; echo ready) &
			sleep 0.05; exec "$D/gone" 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Join(dir, "room"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script)
			cmd.Env = append(os.Environ(), "D="+dir)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			if _, err := stdout.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			at := awaitText(t, cmd.Process.Pid, dir)
			u := stack.New(stack.Config{})
			defer u.Close()
			if err := u.Watch(cmd.Process.Pid); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			frames, err := u.Frames(cmd.Process.Pid, stack.RegsAt(at), nil, event.Return{})
			if len(frames) != 1 || frames[0].Size == 0 || !strings.HasPrefix(frames[0].Module, dir) {
				t.Errorf("got %+v, %v", frames, err)
			}
		})
	}
}

// awaitText waits until a program from dir runs in the process, and returns an
// address in its code.
func awaitText(t *testing.T, pid int, dir string) uint64 {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if at := stack.TextOf(pid, dir); at != 0 {
			return at
		}
	}
	t.Fatal("the program does not start")
	return 0
}
