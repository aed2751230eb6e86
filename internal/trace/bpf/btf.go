package bpf

import (
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// peerOffsets returns where this kernel's structures have what leads from a
// process's descriptor to the other end of its socket: probe.c's at. It needs
// the kernel's BTF; without, identities come from user space alone, and that of
// a client that hangs up at once may come too late.
func peerOffsets() ([14]uint32, error) {
	var out [14]uint32
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return out, err
	}
	for i, f := range [14][2]string{
		{"task_struct", "files"},
		{"files_struct", "fdt"},
		{"fdtable", "max_fds"},
		{"fdtable", "fd"},
		{"file", "private_data"},
		{"socket", "sk"},
		{"sock", "sk_peer_pid"},
		{"sock", "sk_peer_cred"},
		{"pid", "numbers"}, // the first is that of the first namespace
		{"cred", "uid"},
		{"pid", "tasks"}, // the first is of PIDTYPE_PID, here and in pid_links
		{"task_struct", "pid_links"},
		{"task_struct", "start_boottime"},
		{"task_struct", "sessionid"},
	} {
		var s *btf.Struct
		if err := spec.TypeByName(f[0], &s); err != nil {
			return out, err
		}
		bits, ok := member(s.Members, f[1], 0)
		if !ok && f[1] == "sessionid" {
			continue // a kernel without audit
		}
		if !ok {
			return out, fmt.Errorf("struct %s has no %s", f[0], f[1])
		}
		out[i] = bits.Bytes()
	}
	return out, nil
}

// member finds a member, also in unnamed structs and unions.
func member(members []btf.Member, name string, base btf.Bits) (btf.Bits, bool) {
	for _, m := range members {
		if m.Name == name {
			return base + m.Offset, true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, ok := member(inner, name, base+m.Offset); ok {
			return at, true
		}
	}
	return 0, false
}
