package stack

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
)

// A dump is what gdb wrote of one hit of a probe: testdata/dump.py.
type dump struct {
	PID    int    `json:"pid"`
	Spot   string `json:"spot"`
	Regs   string `json:"regs"`
	Stack  string `json:"stack"`
	Maps   string `json:"maps"`
	Frames []struct {
		PC   uint64 `json:"pc"`
		Name string `json:"name"`
	} `json:"frames"`
}

func (d *dump) bytes(t testing.TB) (regs, stack []byte) {
	t.Helper()
	regs, err := hex.DecodeString(d.Regs)
	if err != nil {
		t.Fatal(err)
	}
	if stack, err = hex.DecodeString(d.Stack); err != nil {
		t.Fatal(err)
	}
	return regs, stack
}

func readDumps(t testing.TB, file string) []dump {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []dump
	for line := range bytes.Lines(b) {
		var d dump
		if err := json.Unmarshal(line, &d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// pretend gives the unwinder the maps of a process that is gone.
func (u *Unwinder) pretend(pid int, maps string) {
	u.procs[pid] = &process{maps: parseMaps([]byte(maps)), read: time.Now().Add(time.Hour)}
}

// TestAgainstGDB stops virsh and libvirtd at their probes with gdb, and compares
// what is unwound from a copy of registers and stack with gdb's own backtrace of
// the same moment: complete and identical addresses in at least 99 of 100.
func TestAgainstGDB(t *testing.T) {
	defer posterntest.TraceAlone(t)()
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Need(t, "gdb")
	spots := probes("libvirt:rpc_client_msg_rx", "libvirt:rpc_client_msg_tx_queue", "libvirt:rpc_client_new",
		"libvirt:rpc_socket_new",
		"libvirt:event_glib_add_handle", "libvirt:rpc_client_dispose")
	var dumps []dump
	for _, command := range []string{"domname vm1", "list --all", "nodeinfo"} {
		dumps = append(dumps,
			run(t, spots, append([]string{"virsh", "-c", l.UnixURI()}, strings.Fields(command)...)...)...)
	}
	virsh := len(dumps)
	dumps = append(dumps, dumpDaemon(t, l)...)
	t.Logf("%d stacks of virsh, %d of libvirtd", virsh, len(dumps)-virsh)
	if virsh < 30 || len(dumps)-virsh < 30 {
		t.Fatal("too few stacks")
	}
	good, named := unwindAll(t, dumps)
	t.Logf("%d of %d stacks complete and identical; %d of 100 frames have a name", good, len(dumps), named)
	if 100*good < 99*len(dumps) {
		t.Error("fewer than 99 of 100")
	}
}

// TestCorners does the same where stacks are hard to unwind, in a program made
// for it, with its names and stripped of them: testdata/corners.c. Here all must
// be right.
func TestCorners(t *testing.T) {
	posterntest.Need(t, "gdb")
	for _, flags := range []string{
		"-O2 -Wl,-z,lazy", "-O0 -fno-omit-frame-pointer -no-pie -Wl,-z,lazy",
		"-O3 -static-pie -s",
	} {
		t.Run(flags, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "corners")
			args := append(strings.Fields(flags), "-o", program, "testdata/corners.c", "-lpthread")
			if out, err := exec.Command(posterntest.Need(t, "cc"), args...).CombinedOutput(); err != nil {
				t.Fatalf("cc: %v\n%s", err, out)
			}
			spots := "spot;__vdso_clock_gettime"
			if strings.Contains(flags, "lazy") {
				spots += ";*'qsort@plt';*('qsort@plt'+6);*('qsort@plt'+11)"
			}
			if strings.Contains(flags, "-s") {
				spots = "__vdso_clock_gettime"
			}
			dumps := run(t, spots, program)
			good, _ := unwindAll(t, dumps)
			t.Logf("%d stacks", len(dumps))
			if good != len(dumps) || len(dumps) < strings.Count(spots, ";")+1 {
				t.Errorf("%d of %d stacks are complete and identical", good, len(dumps))
			}
		})
	}
}

// probes are the spots of libvirt's probes.
func probes(names ...string) string {
	return "-probe-stap " + strings.Join(names, ";-probe-stap ")
}

// run runs a command under gdb and returns what was seen at the spots.
func run(t *testing.T, spots string, command ...string) []dump {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dumps")
	cmd := exec.Command("gdb", append([]string{"-q", "-batch", "-nx", "-x", "testdata/dump.py", "--args"},
		command...)...)
	cmd.Env = append(os.Environ(), "OUT="+file, "COUNT=60", "SPOTS="+spots)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gdb: %v\n%s", err, out)
	}
	return readDumps(t, file)
}

// unwindAll unwinds the dumps and counts those that are as gdb says, and how many
// of 100 frames have a name.
func unwindAll(t *testing.T, dumps []dump) (good, named int) {
	t.Helper()
	u := New(Config{})
	defer u.Close()
	frames := 0
	for i := range dumps {
		d := &dumps[i]
		u.pretend(d.PID, d.Maps)
		regs, stack := d.bytes(t)
		got, err := u.Frames(d.PID, regs, stack, event.Return{})
		if reason := differs(d, got); reason != "" || err != nil {
			t.Logf("%s: %v %s\n%s", d.Spot, err, reason, sideBySide(d, got))
			continue
		}
		good++
		for _, f := range got {
			frames++
			if f.Symbol != "" {
				named++
			}
		}
	}
	return good, 100 * named / max(frames, 1)
}

// dumpDaemon attaches gdb to the daemon and keeps it busy meanwhile.
func dumpDaemon(t *testing.T, l *posterntest.Libvirtd) []dump {
	t.Helper()
	dir := t.TempDir()
	file, ready := filepath.Join(dir, "libvirtd.json"), filepath.Join(dir, "ready")
	cmd := exec.Command("gdb", "-q", "-batch", "-nx", "-x", "testdata/dump.py", "-p", fmt.Sprint(l.PID))
	cmd.Env = append(os.Environ(), "OUT="+file, "COUNT=120", "ATTACHED=1", "READY="+ready,
		"SPOTS="+probes("libvirt:rpc_server_client_msg_rx", "libvirt:rpc_server_client_msg_tx_queue",
			"libvirt:event_glib_dispatch_handle",
			"qemu:qemu_monitor_send_msg", "qemu:qemu_monitor_recv_reply"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("gdb: %v\n%s", err, out.Bytes())
			}
			return readDumps(t, file)
		default:
		}
		if _, err := os.Stat(ready); err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for _, c := range []string{"start vm1", "dominfo vm1", "dommemstat vm1", "destroy vm1"} {
			if out, err := l.Virsh(strings.Fields(c)...); err != nil {
				t.Logf("virsh %s: %v %s", c, err, out)
			}
		}
	}
}

func differs(d *dump, got []event.Frame) string {
	if len(got) != len(d.Frames) {
		return fmt.Sprintf("%d frames, gdb has %d", len(got), len(d.Frames))
	}
	for i := range got {
		if got[i].PC != d.Frames[i].PC {
			return fmt.Sprintf("frame %d", i)
		}
		name := d.Frames[i].Name // gdb makes one for a stub, and shortens leaf.isra.0
		if strings.HasSuffix(got[i].Module, "/corners") && !strings.Contains(name, "@") &&
			!strings.HasPrefix(got[i].Symbol, name) {
			return fmt.Sprintf("frame %d's name", i)
		}
	}
	return ""
}

func sideBySide(d *dump, got []event.Frame) string {
	var b strings.Builder
	for i := range max(len(got), len(d.Frames)) {
		if i < len(got) {
			fmt.Fprintf(&b, "%#x %s [%s]", got[i].PC, got[i].Symbol, got[i].Module)
		}
		if i < len(d.Frames) {
			fmt.Fprintf(&b, "\t| %#x %s", d.Frames[i].PC, d.Frames[i].Name)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
