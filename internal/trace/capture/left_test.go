package capture

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/tracetest"
	"github.com/postern-project/postern/internal/trace/usdt"
)

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
		for _, p := range probesOf(t, fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, start, end)) {
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
		if info, err := p.Info(); err == nil && (info.Name == "on_probe" || info.Name == "on_return" ||
			info.Name == "on_begin" || info.Name == "on_enter") {
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
	posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
}

// traceUntilKilled is a tracer of its own process, for the tests that kill it.
func traceUntilKilled() error {
	s, err := Start(Config{What: RPC | Loop | Monitor})
	if err != nil {
		return err
	}
	fmt.Println("tracing")
	return s.Run(context.Background(), &tracetest.Collector{})
}

// startHelper starts a tracer in a process of its own.
func startHelper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"=trace")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
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
