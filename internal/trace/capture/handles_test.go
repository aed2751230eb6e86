package capture

import (
	"debug/elf"
	"testing"

	"github.com/postern-project/postern/internal/trace/bpf"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// TestHandleIsRead asks for a handle's descriptor where the probe's arguments show
// where the handle is, and nowhere else.
func TestHandleIsRead(t *testing.T) {
	for _, c := range []struct {
		spec    string
		machine elf.Machine
		want    bool
	}{
		{"8@%rax 8@%rdx 8@24(%rbx) 8@32(%rbx)", elf.EM_X86_64, true},
		{"8@x0 8@x1 8@[x19, 24] 8@[x19, 32]", elf.EM_AARCH64, true},
		{"8@%rax 8@%rdx 8@24(%rbx) 8@40(%rbx)", elf.EM_X86_64, false},
		{"8@%rax 8@%rdx 8@24(%rbx) 8@32(%rcx)", elf.EM_X86_64, false},
		{"8@%rax 8@%rdx 8@%rcx 8@32(%rbx)", elf.EM_X86_64, false},
		{"8@%rax 8@%rdx 8@24(%rbx)", elf.EM_X86_64, false},
	} {
		args, err := usdt.ParseArgs(c.spec, c.machine)
		if err != nil {
			t.Fatal(err)
		}
		s := bpf.NewSite(usdt.Probe{Provider: "libvirt", Name: "event_glib_dispatch_handle", Args: args})
		withHandle(&s)
		if got := len(s.Args) == 5 && s.Args[4].Disp == 0 && s.Args[4].Reg == args[3].Reg; got != c.want ||
			!c.want && len(s.Args) != len(args) {
			t.Errorf("%s: %v", c.spec, s.Args)
		}
	}
	for _, c := range []struct {
		handle uint64
		fd     int
		ok     bool
	}{{7<<32 | 3, 7, true}, {7<<32 | 4, 7, false}, {0xffffffff<<32 | 3, -1, false}} {
		e := &event.Event{Kind: event.HandleDispatch, Args: []uint64{3, 1, 0, 0, c.handle}}
		if fd, ok := takeHandle(e); fd != c.fd || ok != c.ok || len(e.Args) != 4 {
			t.Errorf("%#x: descriptor %d, %v, %d arguments left", c.handle, fd, ok, len(e.Args))
		}
	}
}
