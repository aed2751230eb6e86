package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

func TestErrorsSayWhatIsMissing(t *testing.T) {
	const all = ^uint64(0)
	split := uint64(1<<capBPF | 1<<capPerfmon)
	for _, c := range []struct {
		name       string
		err        error
		host       host
		code       postern.Code
		says, hint string
	}{
		{
			"not root", unix.EPERM,
			host{release: "6.1.0", multi: true},
			postern.Denied, "needs CAP_BPF and CAP_PERFMON",
			"sudo",
		},
		{
			"one capability", unix.EPERM,
			host{release: "6.8.0", caps: 1 << capBPF, multi: true},
			postern.Denied,
			"needs CAP_PERFMON", "setcap",
		},
		{
			"container root", unix.EPERM,
			host{release: "6.8.0", root: true, multi: true},
			postern.Denied,
			"root does not have here", "--cap-add",
		},
		{
			"before uprobe_multi", unix.EACCES,
			host{release: "6.1.0", caps: split},
			postern.Denied,
			"needs CAP_SYS_ADMIN", "sudo",
		},
		{
			"old kernel", unix.EINVAL,
			host{release: "5.10.0-30-amd64", caps: all},
			postern.Unavailable,
			"too old: tracing needs 5.15", "newer kernel",
		},
		{
			"lockdown", unix.EPERM,
			host{release: "6.8.0", caps: all, multi: true, lockdown: "confidentiality"},
			postern.Denied, "lockdown (confidentiality)", "lockdown=integrity",
		},
		{
			"seccomp", unix.EPERM,
			host{release: "6.8.0", caps: all, multi: true},
			postern.Denied, "kernel refused",
			"seccomp",
		},
		{
			"feature", ebpf.ErrNotSupported,
			host{release: "5.16.0", caps: all},
			postern.Unavailable, "5.16.0 lacks",
			"6.6",
		},
		{
			"memory", unix.ENOMEM,
			host{release: "6.8.0", caps: all, multi: true},
			postern.Unavailable, "ring buffer",
			"smaller buffer",
		},
		{"other", errors.New("boom"), host{release: "6.8.0", caps: all, multi: true}, postern.Unavailable, "boom", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := explain(fmt.Errorf("load: %w", c.err), c.host)
			if got := postern.CodeOf(err); got != c.code {
				t.Errorf("code %v, want %v", got, c.code)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %q, want %q in it", err, c.says)
			}
			if hint := postern.HintOf(err); !strings.Contains(hint, c.hint) || c.hint != "" && hint == "" {
				t.Errorf("hints %q, want %q in it", hint, c.hint)
			}
		})
	}
}
