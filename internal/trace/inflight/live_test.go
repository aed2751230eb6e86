package inflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/inflight"
	"github.com/postern-project/postern/internal/trace/livetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	posterntest.StopLibvirtd()
	os.Exit(code)
}

// stop stops the QEMU of a virtual machine, which answers nothing until the test ends.
func stop(t *testing.T, l *posterntest.Libvirtd, name string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Dir, "run/qemu", name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}

// virsh starts a virsh that may hang, and returns its process.
func virsh(t *testing.T, uri string, args ...string) int {
	t.Helper()
	c := exec.Command("virsh", append([]string{"-q", "-c", uri}, args...)...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c.Process.Pid
}

// only chooses a daemon.
func only(l *posterntest.Libvirtd) inflight.Config {
	c := inflight.Config{JSON: true, Interval: 200 * time.Millisecond}
	c.Capture.Filter.PIDs = []int{l.PID}
	return c
}

// look returns what a daemon does now, once it is as wanted. It traces nothing.
func look(t *testing.T, l *posterntest.Libvirtd, wanted func(*inflight.Daemon) bool) inflight.Daemon {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var out bytes.Buffer
		if err := only(l).Print(&out, terminal.Screen{}); err != nil {
			t.Fatal(err)
		}
		var d inflight.Daemon
		if err := json.Unmarshal(out.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		if wanted(&d) {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never is as it must be:\n%s", out.String())
		}
	}
}

// watch returns what is seen of a daemon while do runs, once it is as wanted.
func watch(t *testing.T, l *posterntest.Libvirtd, do func(), wanted func(*inflight.Daemon) bool) inflight.Daemon {
	t.Helper()
	out := &lines{}
	var found inflight.Daemon
	livetest.Run(t, func() {
		do()
		for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			d, text := out.last()
			if found = d; d.PID != 0 && wanted(&d) {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("it never is as it must be:\n%s", text)
				return
			}
		}
	}, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
		return only(l).Watch(ctx, strings.NewReader(""), out, terminal.Screen{}, ready)
	})
	return found
}

// lines keeps the last line that is written to it.
type lines struct {
	mu  sync.Mutex
	buf []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.HasSuffix(l.buf, []byte("\n")) {
		l.buf = nil
	}
	l.buf = append(l.buf, b...)
	return len(b), nil
}

func (l *lines) last() (d inflight.Daemon, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if json.Unmarshal(l.buf, &d) != nil {
		return inflight.Daemon{}, string(l.buf)
	}
	return d, string(l.buf)
}

// call returns the open call of a process, or nil.
func call(d *inflight.Daemon, pid int) *inflight.Call {
	i := slices.IndexFunc(d.Calls, func(c inflight.Call) bool { return c.Client != nil && c.Client.PID == pid })
	if i < 0 {
		return nil
	}
	return &d.Calls[i]
}

// hang makes calls that hang: one on a QEMU that has stopped, and two that wait for it.
type hang struct{ holder, reader, suspender int }

func (h *hang) begin(t *testing.T, l *posterntest.Libvirtd) {
	t.Helper()
	h.holder = virsh(t, l.UnixURI(), "qemu-monitor-command", "vm1", "--hmp", "info status")
	look(t, l, func(d *inflight.Daemon) bool {
		c := call(d, h.holder)
		return c != nil && c.Waits != nil && c.Waits.For == inflight.ForMonitor
	})
	h.reader = virsh(t, l.TCPURI(), "dommemstat", "vm1")
	h.suspender = virsh(t, l.UnixURI(), "suspend", "vm1")
}

// seen reports whether all three wait.
func (h *hang) seen(d *inflight.Daemon) bool {
	waiters := 0
	for _, c := range d.Calls {
		if c.Waits != nil && c.Waits.For == inflight.ForJob {
			waiters++
		}
	}
	return waiters == 2 && call(d, h.holder) != nil
}

// followed reports whether all three wait and are known from their probes, which may come
// a moment after what the daemon's memory shows.
func (h *hang) followed(d *inflight.Daemon) bool {
	known := h.seen(d) && call(d, h.holder).Waits != nil && call(d, h.holder).Waits.Age > 0
	for _, c := range d.Calls {
		known = known && c.AgeIs == inflight.Exact
	}
	return known
}

// rounding is how far apart two ages of one thing may be, in microseconds: libvirt counts
// in milliseconds, and by another clock than the kernel's probes.
const rounding = 100_000

// check holds what is shown against what hangs.
func (h *hang) check(t *testing.T, d *inflight.Daemon, age inflight.Bound) {
	t.Helper()
	if d.Name != "libvirtd" || len(d.Calls) != 3 || len(d.Connections) != 3 || len(d.Problems) > 0 {
		t.Fatalf("%+v", d)
	}
	holder := call(d, h.holder)
	w := holder.Waits
	if holder.Program != "qemu" || holder.Procedure != "domain_monitor_command" || holder.Domain.Name != "vm1" ||
		!bytes.Contains(holder.Args, []byte(`"cmd":"info status"`)) || w.For != inflight.ForMonitor ||
		w.Machine != "vm1" || w.Command != "human-monitor-command" || !strings.HasPrefix(w.ID, "libvirt-") {
		t.Errorf("the holder: %+v, waits %+v", holder, w)
	}
	if (age == inflight.Exact) != (w.Age > 0) {
		t.Errorf("the command's age: %+v", w)
	}
	for procedure, pid := range map[string]int{"domain_memory_stats": 0, "domain_suspend": h.suspender} {
		i := slices.IndexFunc(d.Calls, func(c inflight.Call) bool { return c.Procedure == procedure })
		if i < 0 {
			t.Errorf("no %s", procedure)
			continue
		}
		c := &d.Calls[i]
		if c.Client.PID != pid || c.Domain.Name != "vm1" || c.Waits.For != inflight.ForJob || c.Waits.Holder == nil {
			t.Errorf("a waiter: %+v, waits %+v", c, c.Waits)
			continue
		}
		if by := c.Waits.Holder; by.Client == nil || by.Client.PID != h.holder || by.Thread != holder.Thread ||
			by.Call != "qemu.domain_monitor_command" || by.API != "qemuDispatchDomainMonitorCommand" || by.Age <= 0 ||
			by.Age > holder.Age+rounding {
			t.Errorf("who has the job: %+v", by)
		}
	}
	for _, c := range d.Calls {
		if c.AgeIs != age || c.Age <= 0 || c.Age > holder.Age+rounding || c.Connection == 0 {
			t.Errorf("the age: %+v", c)
		}
	}
	for _, c := range d.Connections {
		if c.Calls != 1 || c.Since.IsZero() || c.Client.PID == 0 && c.Transport != "tcp" {
			t.Errorf("a connection: %+v", c)
		}
	}
}

// TestTheHang: QEMU has stopped, and calls wait for it and for each other.
func TestTheHang(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	t.Cleanup(func() { _, _ = l.Virsh("destroy", "vm1") })
	var h hang
	t.Run("seen from its beginning", func(t *testing.T) {
		stop(t, l, "vm1")
		d := watch(t, l, func() { h.begin(t, l) }, h.followed)
		h.check(t, &d, inflight.Exact)
	})
	look(t, l, func(d *inflight.Daemon) bool { return len(d.Calls) == 0 && len(d.Connections) == 0 })
	t.Run("seen later", func(t *testing.T) {
		stop(t, l, "vm1")
		h.begin(t, l)
		d := look(t, l, h.seen)
		h.check(t, &d, inflight.AtLeast)
	})
}

// restart starts a daemon of its own again with other settings.
func restart(t *testing.T, settings map[string]string) *posterntest.Libvirtd {
	t.Helper()
	l := posterntest.SharedLibvirtd(t)
	file := filepath.Join(l.Dir, "conf/libvirtd.conf")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var conf []byte
	for name, value := range settings {
		conf = append(conf, name+" = "+value+"\n"...)
	}
	conf = append(conf, old...) // of two the first one takes effect
	again := func(conf []byte) {
		if err := os.WriteFile(file, conf, 0o600); err != nil {
			t.Fatal(err)
		}
		l.Kill()
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
	}
	again(conf)
	t.Cleanup(func() { again(old) })
	return l
}

// server returns what the daemon has for its drivers' clients.
func server(d *inflight.Daemon) inflight.Server {
	for _, s := range d.Servers {
		if s.Name == "libvirtd" {
			return s
		}
	}
	return inflight.Server{}
}

// TestASaturatedDaemon: it has as many clients as it takes, and two more wait to be
// accepted, of which no probe tells.
func TestASaturatedDaemon(t *testing.T) {
	const limit = 5
	l := restart(t, map[string]string{"max_clients": "5", "max_anonymous_clients": "5"})
	for range limit {
		r, err := posterntest.DialRPC("unix", l.Socket())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
	}
	local := virsh(t, l.UnixURI(), "list")
	remote, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	d := look(t, l, func(d *inflight.Daemon) bool { return len(d.NotAccepted) == 2 })
	if s := server(&d); s.Clients != limit || s.MaxClients != limit || len(d.Calls) > 0 || len(d.Connections) != limit {
		t.Errorf("%+v", d)
	}
	for _, c := range d.Connections {
		if c.Client.PID != os.Getpid() || c.Transport != "unix" {
			t.Errorf("a connection of %+v", c.Client)
		}
	}
	pids, addresses := 0, 0
	for _, c := range d.NotAccepted {
		switch {
		case c.PID == local && strings.Contains(c.Command, "virsh"):
			pids++
		case c.Remote == strings.Replace(remote.LocalAddr().String(), ":", ";", 1):
			addresses++
		}
	}
	if pids != 1 || addresses != 1 {
		t.Errorf("not accepted: %+v", d.NotAccepted)
	}
}

// TestAFullWorkerPool: all workers wait for QEMU, and another call for a worker.
func TestAFullWorkerPool(t *testing.T) {
	l := restart(t, map[string]string{"min_workers": "2", "max_workers": "2", "prio_workers": "1"})
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	t.Cleanup(func() { _, _ = l.Virsh("destroy", "vm1") })
	stop(t, l, "vm1")
	for range 2 {
		pid := virsh(t, l.UnixURI(), "dommemstat", "vm1")
		look(t, l, func(d *inflight.Daemon) bool { return call(d, pid) != nil && call(d, pid).Thread != 0 })
	}
	pid := virsh(t, l.UnixURI(), "suspend", "vm1")
	waits := func(d *inflight.Daemon) *inflight.Call {
		i := slices.IndexFunc(d.Calls, func(c inflight.Call) bool {
			return c.Waits != nil && c.Waits.For == inflight.ForWorker
		})
		if i < 0 {
			return nil
		}
		return &d.Calls[i]
	}
	d := look(t, l, func(d *inflight.Daemon) bool {
		return len(d.Calls) == 3 && waits(d) != nil && server(d).Queued == 1
	})
	if c := waits(&d); c.Client.PID != pid || c.Thread != 0 || c.Program != "remote" || c.Connection == 0 {
		t.Errorf("%+v", c)
	}
	if s := server(&d); s.Busy != 2 || s.MaxWorkers != 2 {
		t.Errorf("%+v", s)
	}
}
