package trace

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/postern-project/postern/posterntest"
	"github.com/postern-project/postern/trace/event"
	"github.com/postern-project/postern/trace/usdt"
)

// versions asks a daemon for its version n times.
func versions(t *testing.T, l *posterntest.Libvirtd, n int) {
	t.Helper()
	r, err := posterntest.DialRPC("unix", l.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range n {
		if _, err := r.Call(posterntest.ProcLibVersion, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func isVersion(e *event.Event) bool { return e.Kind.RPC() && e.Proc == posterntest.ProcLibVersion }

// TestLossIsCountedExactly stops the reader while the daemon works: what does
// not fit into the buffer is lost, and told of where it happened, to the last
// message.
func TestLossIsCountedExactly(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	c := &collector{gate: make(chan struct{})}
	s, err := Start(Config{Buffer: 16 << 10, Filter: Filter{PIDs: []int{l.PID}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, c) }()
	const first, second = 2000, 10
	versions(t, l, first)
	close(c.gate) // the reader goes on
	waitFor(t, func() bool { return len(c.of(func(e *event.Event) bool { return e.Kind == event.Lost })) > 0 })
	versions(t, l, second)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	seen, lost, after := map[string]uint64{}, map[string]uint64{}, 0
	for _, e := range c.all() {
		switch {
		case e.Kind == event.Lost:
			if e.PID != l.PID || e.Comm != "libvirtd" {
				t.Errorf("lost in %q (%d)", e.Comm, e.PID)
			}
			lost[e.Probe] += e.Arg(0)
			after = 0
		case isVersion(&e):
			seen[e.Probe]++
			after++
		}
	}
	for _, probe := range []string{"libvirt:rpc_server_client_msg_rx", "libvirt:rpc_server_client_msg_tx_queue"} {
		// Two connections were opened with two calls each; what was lost of them
		// was not seen either.
		opening := uint64(len(c.of(func(e *event.Event) bool { return e.Probe == probe && e.Kind.RPC() && !isVersion(e) })))
		if got := seen[probe] + opening + lost[probe]; got != first+second+4 {
			t.Errorf("%s: %d seen, %d lost of %d", probe, seen[probe]+opening, lost[probe], first+second+4)
		}
		if lost[probe] == 0 {
			t.Errorf("%s: nothing was lost", probe)
		}
	}
	if after < 2*second {
		t.Errorf("only %d messages after the loss", after)
	}
	sum := uint64(0)
	for _, loss := range s.Summary().Losses {
		sum += loss.Lost
	}
	told := uint64(0)
	for _, n := range lost {
		told += n
	}
	if sum != told {
		t.Errorf("the summary has %d lost, the trace %d", sum, told)
	}
}

// waitFor waits until something holds, for a minute.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		runtime.Gosched()
		time.Sleep(5 * time.Millisecond)
	}
}

// semaphores returns the sum of a process's probe semaphores.
func semaphores(t *testing.T, pid int) int {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.Contains(f[1], "w") || !libvirtFile(f[5]) {
			continue
		}
		var start, end, offset uint64
		if _, err := fmt.Sscanf(f[0]+" "+f[2], "%x-%x %x", &start, &end, &offset); err != nil {
			t.Fatal(err)
		}
		for _, p := range probesOf(t, f[5]) {
			if p.Semaphore < offset || p.Semaphore-offset >= end-start {
				continue
			}
			var b [2]byte
			if _, err := mem.ReadAt(b[:], int64(start+p.Semaphore-offset)); err != nil {
				t.Fatal(err)
			}
			sum += int(binary.LittleEndian.Uint16(b[:]))
		}
	}
	return sum
}

func probesOf(t *testing.T, file string) []usdt.Probe {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parsed, err := usdt.Open(f)
	if errors.Is(err, usdt.ErrNoProbes) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Probes
}

// loaded counts the kernel's programs and maps of ours.
func loaded(t *testing.T) int {
	t.Helper()
	n := 0
	for id, err := ebpf.ProgramID(0), error(nil); ; {
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			break
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // just unloaded
		}
		if info, err := p.Info(); err == nil && (info.Name == "on_probe" || info.Name == "on_return" || info.Name == "on_begin") {
			n++
		}
		p.Close()
	}
	return n
}

func countFDs(t *testing.T, pid int) int {
	t.Helper()
	names, err := readNames(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestNothingIsLeftBehind attaches and detaches again and again while the daemon
// works.
func TestNothingIsLeftBehind(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	rounds := 8
	if os.Getenv("POSTERN_SOAK") == "1" {
		rounds = 1000
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			versions(t, l, 100)
		}
	})
	defer func() { stop(); wg.Wait() }()
	ours, theirs := countFDs(t, os.Getpid()), countFDs(t, l.PID)
	for range rounds {
		s, err := Start(Config{What: RPC | Loop | Monitor})
		if err != nil {
			t.Fatal(err)
		}
		if semaphores(t, l.PID) == 0 {
			t.Fatal("no semaphore is raised while attached")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	clean(t, l)
	if n := countFDs(t, os.Getpid()); n > ours+2 {
		t.Errorf("%d descriptors of ours, %d before", n, ours)
	}
	if n := countFDs(t, l.PID); n > theirs+2 {
		t.Errorf("%d descriptors of the daemon's, %d before", n, theirs)
	}
}

// clean checks that nothing of a tracer is left in the kernel or the daemon, and
// that the daemon works.
func clean(t *testing.T, l *posterntest.Libvirtd) {
	t.Helper()
	// The kernel frees programs and lowers semaphores a moment after the last
	// reference is gone.
	waitFor(t, func() bool { return loaded(t) == 0 && semaphores(t, l.PID) == 0 })
	virsh(t, l.UnixURI(), "dominfo", "vm1")
}

// TestHelperTracer is a tracer of its own process, for the tests that kill it.
func TestHelperTracer(t *testing.T) {
	if os.Getenv("POSTERN_TRACE_HELPER") != "1" {
		t.Skip("run by other tests")
	}
	s, err := Start(Config{What: RPC | Loop | Monitor})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("tracing")
	_ = s.Run(t.Context(), &collector{})
}

// startHelper starts a tracer in a process of its own.
func startHelper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperTracer$", "-test.v")
	cmd.Env = append(os.Environ(), "POSTERN_TRACE_HELPER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "tracing") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return cmd
		}
	}
	t.Fatal("the tracer did not start")
	return nil
}

func TestKilledTracerHarmsNothing(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			versions(t, l, 100)
		}
	})
	for range 3 {
		cmd := startHelper(t)
		waitFor(t, func() bool { return semaphores(t, l.PID) > 0 })
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
	}
	stop()
	wg.Wait()
	clean(t, l)
}

// TestDaemonIsRestartedAndReplaced traces while the daemon is killed, started
// again, and started with another libvirt.so.0 which is then removed from disk.
func TestDaemonIsRestartedAndReplaced(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	pids := map[int]bool{l.PID: false}
	first := l.PID
	libs, _ := filepath.Glob("/usr/lib/*/libvirt.so.0")
	if len(libs) == 0 {
		posterntest.Missing(t, "needs libvirt.so.0")
	}
	other := t.TempDir()
	if err := os.Chmod(other, 0o755); err != nil {
		t.Fatal(err)
	}
	c, _ := traced(t, Config{}, func(l *posterntest.Libvirtd) {
		versions(t, l, 3)
		r, err := posterntest.DialRPC("unix", l.Socket()) // one that is open when it ends
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		l.Kill()
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		pids[l.PID] = false
		versions(t, l, 3)
		l.Kill()
		data, err := os.ReadFile(libs[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(other, "libvirt.so.0"), data, 0o755); err != nil {
			t.Fatal(err)
		}
		l.Env = []string{"LD_LIBRARY_PATH=" + other}
		err = l.Start()
		l.Env = nil
		if err != nil {
			t.Fatal(err)
		}
		pids[l.PID] = false
		if err := os.Remove(filepath.Join(other, "libvirt.so.0")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return attachedToDeleted(t, l.PID) })
		versions(t, l, 3)
	})
	for _, e := range c.of(func(e *event.Event) bool { return isVersion(e) && !e.NoPayload }) {
		pids[e.PID] = true
	}
	var gone []int
	for _, e := range c.of(func(e *event.Event) bool { return e.Kind == event.Gone }) {
		if gone = append(gone, e.PID); e.Comm != "libvirtd" {
			t.Errorf("%q has gone", e.Comm)
		}
	}
	if !slices.Contains(gone, first) {
		t.Errorf("%v have gone, not %d, which was killed", gone, first)
	}
	for pid, seen := range pids {
		if !seen {
			t.Errorf("nothing was seen of process %d", pid)
		}
	}
	// What was removed from disk is still found by what has it mapped.
	c, _ = traced(t, Config{Filter: Filter{PIDs: []int{l.PID}}}, func(l *posterntest.Libvirtd) { versions(t, l, 3) })
	if n := len(c.of(isVersion)); n != 6 {
		t.Errorf("%d messages of a library that was removed from disk, want 6", n)
	}
	l.Kill()
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
}

// attachedToDeleted reports whether the copy of the library that was deleted has been
// attached to: its first instruction of some probe is a breakpoint then.
func attachedToDeleted(t *testing.T, pid int) bool {
	t.Helper()
	maps, err := usdt.Mappings(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if !m.Deleted || !strings.HasSuffix(m.Path, "libvirt.so.0") {
			continue
		}
		file, err := m.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		parsed, err := usdt.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		return raised(t, pid, m, parsed.Probes)
	}
	t.Fatal("the daemon has no deleted library")
	return false
}

// raised reports whether the code of a message probe has been replaced in memory.
func raised(t *testing.T, pid int, m usdt.Mapping, probes []usdt.Probe) bool {
	t.Helper()
	for _, p := range probes {
		if p.Name != "rpc_server_client_msg_rx" {
			continue
		}
		var b [1]byte
		return readMemory(pid, m.Start+p.Addr, b[:]) && b[0] != 0x90
	}
	return false
}

func TestManyClientsAtOnce(t *testing.T) {
	const clients = 200
	c, sum := traced(t, Config{}, func(l *posterntest.Libvirtd) {
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() { versions(t, l, 3) })
		}
		wg.Wait()
	})
	if len(sum.Losses) > 0 {
		t.Errorf("lost %v", sum.Losses)
	}
	conns := map[uint64]int{}
	for _, e := range c.of(isVersion) {
		conns[e.Client]++
		if e.Peer == nil || e.Peer.PID != os.Getpid() || e.Peer.UID != 0 {
			t.Fatalf("client %+v", e.Peer)
		}
		if e.Type == 1 && e.Call == nil {
			t.Errorf("a reply without a call: %+v", e)
		}
	}
	total := 0
	for _, n := range conns {
		total += n
	}
	if total != clients*3*2 {
		t.Errorf("%d messages, want %d", total, clients*3*2)
	}
}

func TestHugeMessageIsCut(t *testing.T) {
	const size = 32<<20 - 28 // the most that libvirt accepts
	c, _ := traced(t, Config{Payload: 64 << 10}, func(l *posterntest.Libvirtd) {
		r, err := posterntest.DialRPC("unix", l.Socket())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		payload := bytes.Repeat([]byte("postern "), size/8)
		// The daemon refuses it: no string may be so long.
		if _, err := r.Call(10, payload); err == nil {
			t.Error("the daemon accepts 32 MiB of nonsense")
		}
		if _, err := r.Call(posterntest.ProcLibVersion, nil); err != nil {
			t.Error(err)
		}
	})
	huge := c.of(func(e *event.Event) bool { return e.Len > 1<<20 })
	if len(huge) != 1 {
		t.Fatalf("%d huge messages", len(huge))
	}
	e := huge[0]
	want := 64<<10 - 28
	if !e.Cut || len(e.Payload) != want || e.PayloadLen < size-8 || !bytes.Equal(e.Payload, bytes.Repeat([]byte("postern "), 1+want/8)[:want]) {
		t.Errorf("cut %v, %d bytes of %d", e.Cut, len(e.Payload), e.PayloadLen)
	}
	if n := len(c.of(isVersion)); n != 2 {
		t.Errorf("%d messages afterwards, want 2", n)
	}
}

// TestMemoryStaysBounded counts a great many events through one session.
func TestMemoryStaysBounded(t *testing.T) {
	posterntest.Soak(t)
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	s, err := Start(Config{What: RPC | Loop | Monitor})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, discard{}) }()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	versions(t, l, 10_000)
	before := heap()
	for range 100 {
		versions(t, l, 10_000)
	}
	if after := heap(); after > before+32<<20 {
		t.Errorf("%d bytes of heap, %d before", after, before)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if sum := s.Summary(); len(sum.Losses) > 0 || sum.Seen < 2_000_000 {
		t.Errorf("%v", sum)
	}
}

type discard struct{}

func (discard) Event(*event.Event) error { return nil }
func (discard) Idle() error              { return nil }
