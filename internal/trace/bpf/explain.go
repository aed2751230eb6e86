package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// host is what decides whether a kernel lets us trace.
type host struct {
	release  string // uname -r
	caps     uint64 // effective capabilities
	root     bool   // effective user 0
	lockdown string // none, integrity, confidentiality; "" when unknown
	multi    bool   // has uprobe_multi links
}

// Capabilities, by their bit (include/uapi/linux/capability.h).
const (
	capSysPtrace = unix.CAP_SYS_PTRACE
	capSysAdmin  = unix.CAP_SYS_ADMIN
	capPerfmon   = unix.CAP_PERFMON
	capBPF       = unix.CAP_BPF
)

var capNames = map[int]string{
	capSysPtrace: "CAP_SYS_PTRACE", capSysAdmin: "CAP_SYS_ADMIN", capPerfmon: "CAP_PERFMON", capBPF: "CAP_BPF",
}

// The oldest kernel that works: bpf_get_attach_cookie came with it. Tracing
// without CAP_SYS_ADMIN needs uprobe_multi links.
const (
	oldestKernel = "5.15"
	multiKernel  = "6.6"
)

func thisHost() host {
	h := host{root: os.Geteuid() == 0}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.release = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(b)) {
			if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
				h.caps, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			}
		}
	}
	if b, err := os.ReadFile("/sys/kernel/security/lockdown"); err == nil {
		_, rest, _ := strings.Cut(string(b), "[")
		h.lockdown, _, _ = strings.Cut(rest, "]")
	}
	if h.has(capBPF) {
		h.multi = multiUprobes()
	}
	return h
}

// has reports whether a capability is there; CAP_SYS_ADMIN stands for the two
// that were split from it.
func (h host) has(c int) bool {
	if (c == capBPF || c == capPerfmon) && h.caps&(1<<capSysAdmin) != 0 {
		return true
	}
	return h.caps&(1<<c) != 0
}

// Preflight returns an error that names what this host lacks for tracing, or nil.
func Preflight() error {
	if err := thisHost().missing(); err != nil {
		return err
	}
	return nil
}

// CanInspect reports whether other processes may be looked into: their memory
// and descriptors, which name the clients of connections.
func CanInspect() bool { return thisHost().has(capSysPtrace) }

func (h host) missing() error {
	if older(h.release, oldestKernel) {
		return postern.Errorf(postern.Unavailable, "kernel %s is too old: tracing needs %s", h.release, oldestKernel).
			WithHint("boot a newer kernel")
	}
	need := []int{capBPF, capPerfmon}
	if h.has(capBPF) && !h.multi {
		need = []int{capBPF, capSysAdmin}
	}
	var lack []string
	for _, c := range need {
		if !h.has(c) {
			lack = append(lack, capNames[c])
		}
	}
	switch {
	case len(lack) == 0:
		return nil
	case h.root:
		return postern.Errorf(postern.Denied, "tracing needs %s, which root does not have here: this is a container",
			strings.Join(lack, " and ")).
			WithHint("trace from the host, or start the container with --cap-add BPF --cap-add PERFMON --cap-add " +
				"SYS_PTRACE and --pid host")
	}
	return postern.Errorf(postern.Denied, "tracing needs %s", strings.Join(lack, " and ")).
		WithHint("run it with sudo, or give the program the capabilities: sudo setcap " +
			"cap_bpf,cap_perfmon,cap_sys_ptrace=ep $(command -v postern)")
}

// Explain turns an error of Load or Attach into one that says what is missing
// and what to do.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	return explain(err, thisHost())
}

func explain(err error, h host) error {
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	if m := h.missing(); m != nil {
		return m
	}
	switch {
	case h.lockdown == "confidentiality":
		return postern.Errorf(postern.Denied, "kernel lockdown (confidentiality) forbids eBPF to read memory: %w",
			err).
			WithHint("boot with lockdown=integrity, or without lockdown")
	case errors.Is(err, fs.ErrPermission):
		return postern.Errorf(postern.Denied, "the kernel refused: %w", err).
			WithHint("a seccomp or security module policy forbids bpf(2) here; in a container, use --security-opt " +
				"seccomp=unconfined, or trace from the host")
	case errors.Is(err, ebpf.ErrNotSupported):
		return postern.Errorf(postern.Unavailable, "kernel %s lacks something: %w", h.release, err).
			WithHint("kernel %s and newer have all that tracing uses", multiKernel)
	case errors.Is(err, unix.ENOMEM):
		return postern.Errorf(postern.Unavailable, "no memory for the ring buffer: %w",
			err).WithHint("use a smaller buffer")
	}
	return postern.Errorf(postern.Unavailable, "%w", err)
}

// older reports whether kernel release r is before v (MAJOR.MINOR). One that
// cannot be read is not.
func older(r, v string) bool {
	var a, b [2]int
	if _, err := fmt.Sscanf(r, "%d.%d", &a[0], &a[1]); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(v, "%d.%d", &b[0], &b[1]); err != nil {
		return false
	}
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}
