package capture

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
	"golang.org/x/sys/unix"
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
// not fit into the buffer is lost, and every lost message is reported where it was
// lost.
func TestLossIsCountedExactly(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	c := &tracetest.Collector{Gate: make(chan struct{})}
	s, err := Start(Config{Buffer: 16 << 10, Filter: correlate.Filter{PIDs: []int{l.PID}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, c) }()
	const first, second = 2000, 10
	versions(t, l, first)
	close(c.Gate) // the reader goes on
	waitFor(t, func() bool { return len(c.Of(func(e *event.Event) bool { return e.Kind == event.Lost })) > 0 })
	versions(t, l, second)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	seen, lost, after := map[string]uint64{}, map[string]uint64{}, 0
	for _, e := range c.All() {
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
		opening := uint64(len(c.Of(func(e *event.Event) bool {
			return e.Probe == probe && e.Kind.RPC() && !isVersion(e)
		})))
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
	reported := uint64(0)
	for _, n := range lost {
		reported += n
	}
	if sum != reported {
		t.Errorf("the summary has %d lost, the trace %d", sum, reported)
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
	for _, e := range c.Of(isVersion) {
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

// TestClientThatEndsBeforeItIsReadIsKnown: a client has ended, and was waited for,
// before the tracer reads the first event. Its process and its audit session are
// what the kernel had.
func TestClientThatEndsBeforeItIsReadIsKnown(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	s, err := Start(Config{Filter: correlate.Filter{PIDs: []int{l.PID}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client := exec.Command("sh", "-c", `echo 0 >/proc/self/loginuid; exec virsh -q -c "$0" version`, l.UnixURI())
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	pid := client.Process.Pid
	// It has ended, and /proc still has it.
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	want := newPeers().process(pid, true)
	if err := client.Wait(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var c tracetest.Collector
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &c) }()
	of := func(e *event.Event) bool { return e.Kind.RPC() && e.Peer != nil && e.Peer.PID == pid }
	waitFor(t, func() bool { return len(c.Of(of)) > 0 })
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if p := c.Of(of)[0].Peer; p.Start != want.start || p.Session != want.session || p.Session == 0 {
		t.Errorf("the tracer has %+v, /proc had %+v", p, want)
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
	huge := c.Of(func(e *event.Event) bool { return e.Len > 1<<20 })
	if len(huge) != 1 {
		t.Fatalf("%d huge messages", len(huge))
	}
	e := huge[0]
	want := 64<<10 - 28
	if !e.Cut || len(e.Payload) != want || e.PayloadLen < size-8 ||
		!bytes.Equal(e.Payload, bytes.Repeat([]byte("postern "), 1+want/8)[:want]) {
		t.Errorf("cut %v, %d bytes of %d", e.Cut, len(e.Payload), e.PayloadLen)
	}
	if n := len(c.Of(isVersion)); n != 2 {
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
