package inflight

import (
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
)

// TestAWorkerThatCannotBeFollowed: its stack ends before the call that it works on, as in
// virFileOpenAs of libvirt 11.3 where its frame cannot be told.
func TestAWorkerThatCannotBeFollowed(t *testing.T) {
	const libc, libvirt = "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libvirt.so.0.11003.0"
	open := []event.Frame{{Module: libc}, {Symbol: "open", Module: libc}, {Symbol: "virFileOpenAs", Module: libvirt}}
	idle := []event.Frame{{Symbol: "pthread_cond_wait", Module: libc}, {Symbol: "virCondWait", Module: libvirt}, {
		Symbol: "virThreadPoolWorker", Module: libvirt,
	}}
	const says = "the call that thread 7 works on cannot be seen; it waits in virFileOpenAs"
	for _, c := range []struct {
		name   string
		thread string
		frames []event.Frame
		want   string
	}{
		{"followed in part", "rpc-libvirtd", open, says},
		{"a worker for what never waits", "prio-rpc-libvir", open, says},
		{"followed", "rpc-libvirtd", append(open[:3:3], event.Frame{Symbol: dispatcher, Module: libvirt}), ""},
		{"another thread", "qemu-event", open, ""},
		{"idle", "rpc-libvirtd", idle, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := unseen(c.thread, 7, &stack.Thread{Frames: c.frames}); got != c.want {
				t.Errorf("says %q, want %q", got, c.want)
			}
		})
	}
}
