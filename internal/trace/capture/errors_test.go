package capture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// startOnce starts a session in a process of its own, for the tests of hosts that
// lack something, and prints how that went.
func startOnce() error {
	s, err := Start(Config{})
	if err != nil {
		fmt.Printf("error: %v\nhint: %s\ncode: %v\n", err, postern.HintOf(err), postern.CodeOf(err))
		return nil
	}
	fmt.Println("started")
	return s.Close()
}

// startUnder starts a session in a shell that first runs setup, as the program
// that the words of under begin.
func startUnder(t *testing.T, setup string, under ...string) string {
	t.Helper()
	posterntest.NeedRoot(t)
	for _, program := range []string{"unshare", "setpriv", under[0]} {
		posterntest.Need(t, program)
	}
	defer posterntest.TraceAlone(t)()
	// The test's own folder is closed to other users.
	dir := posterntest.OpenDir(t)
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "trace.test")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	words := append(append([]string{"-m", "--propagation", "private", "sh", "-ec", setup + ` exec "$@"`, "sh"},
		under...),
		program)
	cmd := exec.Command("unshare", words...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), processEnv+"=start")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func wants(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
}

func TestWithoutRoot(t *testing.T) {
	out := startUnder(t, "", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
	wants(t, out, "error: tracing needs CAP_BPF and CAP_PERFMON", "hint: run it with sudo", "setcap", "code: denied")
}

// TestInAContainer has root without the capabilities, and no BTF, as a container
// has it.
func TestInAContainer(t *testing.T) {
	out := startUnder(t, "mount -t tmpfs none /sys/kernel/btf 2>/dev/null || mount -t tmpfs none /sys/kernel;",
		"setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon,-sys_ptrace", "--inh-caps=-all")
	wants(t, out, "error: tracing needs CAP_BPF and CAP_PERFMON, which root does not have here: this is a container",
		"hint: trace from the host", "--cap-add BPF", "--pid host", "code: denied")
}

// TestBTFIsNotNeeded: the programs use no kernel structures, so that a host
// without BTF is no reason to refuse.
func TestBTFIsNotNeeded(t *testing.T) {
	posterntest.SharedLibvirtd(t)
	out := startUnder(t, "mount -t tmpfs none /sys/kernel/btf 2>/dev/null || mount -t tmpfs none /sys/kernel;", "env")
	wants(t, out, "started")
}

func TestWithoutLibvirt(t *testing.T) {
	hide := "for f in /usr/lib/*/libvirt.so.0 /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so " +
		"/usr/sbin/libvirtd; do [ ! -e $f ] || mount --bind /dev/null $f; done;"
	out := startUnder(t, hide, "unshare", "--pid", "--fork", "--mount-proc")
	wants(t, out, "error: no libvirt on this host", "hint: install libvirt", "name its files", "--pid host",
		"code: not found")
}

func TestWithoutProbes(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   Config
		libs  []*Library
		wants string
	}{
		{
			"a build without probes",
			Config{},
			[]*Library{{Path: "/usr/lib/libvirt.so.0", Err: usdt.ErrNoProbes}},
			"this build of libvirt has no probes: /usr/lib/libvirt.so.0",
		},
		{
			"a broken file",
			Config{},
			[]*Library{{Path: "/x", Err: fmt.Errorf("bad magic")}},
			"cannot be read: /x: bad magic",
		},
		{
			"a process without libvirt",
			Config{Filter: correlate.Filter{PIDs: []int{1}}},
			nil,
			"no process of those named",
		},
		{"a file that is not there", Config{Paths: []string{"/none"}}, nil, "no such file: /none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := noProbes(c.cfg, c.libs)
			if !strings.Contains(err.Error(), c.wants) {
				t.Errorf("says %q, want %q", err, c.wants)
			}
		})
	}
}
