//go:build linux

package inflight_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/inflight"
	"golang.org/x/sys/unix"
)

// slow makes every open(2) of a file wait until the test ends, as storage does that does not
// answer.
func slow(t *testing.T, file string) {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) }) // the kernel then permits what waits
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, file); err != nil {
		t.Fatal(err)
	}
}

// poolOf makes a storage pool with one volume, and a virtual machine vm2 whose disk that is.
// It returns the volume's file.
func poolOf(t *testing.T, l *posterntest.Libvirtd) string {
	t.Helper()
	dir := filepath.Join(l.Dir, "pool")
	file := filepath.Join(dir, "disk.img")
	const disk = `<disk type='volume' device='disk'><source pool='slow' volume='disk.img'/>` +
		`<target dev='vda' bus='virtio'/></disk>`
	xml := strings.Replace(l.DomainXML("vm2"), "<controller", disk+"<controller", 1)
	for name, text := range map[string]string{"pool/disk.img": strings.Repeat("\x00", 1<<20), "conf/vm2.xml": xml} {
		path := filepath.Join(l.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range [][]string{
		{"pool-define-as", "slow", "dir", "--target", dir},
		{"pool-start", "slow"},
		{"define", filepath.Join(l.Dir, "conf/vm2.xml")},
	} {
		posterntest.Virsh(t, l.UnixURI(), command...)
	}
	t.Cleanup(func() {
		look(t, l, func(d *inflight.Daemon) bool { return len(d.Calls) == 0 })
		for _, command := range [][]string{
			{"destroy", "vm2"}, {"undefine", "vm2"}, {"pool-destroy", "slow"}, {"pool-undefine", "slow"},
		} {
			_, _ = l.Virsh(command...)
		}
	})
	return file
}

// poolHang makes calls that hang: one on a storage pool's file system, one that starts a
// virtual machine and needs that pool, and one that looks for that machine.
type poolHang struct{ refresh, start, find int }

func (h *poolHang) begin(t *testing.T, l *posterntest.Libvirtd) {
	t.Helper()
	waits := func(pid int, why inflight.Reason) {
		look(t, l, func(d *inflight.Daemon) bool {
			c := call(d, pid)
			return c != nil && c.Waits != nil && c.Waits.For == why
		})
	}
	h.refresh = virsh(t, l.UnixURI(), "pool-refresh", "slow")
	waits(h.refresh, inflight.ForKernel)
	h.start = virsh(t, l.UnixURI(), "start", "vm2")
	waits(h.start, inflight.ForLock)
	h.find = virsh(t, l.UnixURI(), "domid", "vm2")
}

// seen reports whether the last of the three waits.
func (h *poolHang) seen(d *inflight.Daemon) bool {
	c := call(d, h.find)
	return c != nil && c.Waits != nil && c.Waits.For == inflight.ForLock
}

// followed reports whether all three are known from their probes too.
func (h *poolHang) followed(d *inflight.Daemon) bool {
	return h.seen(d) && !slices.ContainsFunc(d.Calls, func(c inflight.Call) bool { return c.AgeIs != inflight.Exact })
}

// check holds what is shown against what hangs. How long a thread has a mutex is not to be
// known, but how old its call is.
func (h *poolHang) check(t *testing.T, d *inflight.Daemon, age inflight.Bound) {
	t.Helper()
	refresh, start, find := call(d, h.refresh), call(d, h.start), call(d, h.find)
	if len(d.Calls) != 3 || refresh == nil || start == nil || find == nil || len(d.Problems) > 0 {
		t.Fatalf("%+v", d)
	}
	if w := refresh.Waits; refresh.Procedure != "storage_pool_refresh" || w.For != inflight.ForKernel ||
		!strings.HasPrefix(w.In, "virFileOpen") {
		t.Errorf("the refresh: %+v, waits %+v", refresh, w)
	}
	if start.Procedure != "domain_create" || start.Domain.Name != "vm2" || find.Procedure != "domain_lookup_by_name" {
		t.Errorf("the calls: %+v, %+v", start, find)
	}
	for waiter, holder := range map[*inflight.Call]*inflight.Call{start: refresh, find: start} {
		if by := waiter.Waits.Holder; by == nil || by.Thread != holder.Thread || by.Client == nil ||
			by.Client.PID != holder.Client.PID || by.Call != "remote."+holder.Procedure {
			t.Errorf("%+v waits for %+v", waiter, by)
		}
	}
	for _, c := range d.Calls {
		if c.AgeIs != age || c.Age <= 0 {
			t.Errorf("the age: %+v", c)
		}
	}
}

// TestASlowStoragePool: a pool's file system does not answer, a virtual machine starts that
// has a disk in it, and another client asks for that machine.
func TestASlowStoragePool(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	t.Run("seen from its beginning", func(t *testing.T) {
		slow(t, poolOf(t, l))
		var h poolHang
		d := watch(t, l, func() { h.begin(t, l) }, h.followed)
		h.check(t, &d, inflight.Exact)
	})
	t.Run("seen later", func(t *testing.T) {
		slow(t, poolOf(t, l))
		var h poolHang
		h.begin(t, l)
		d := look(t, l, h.seen)
		h.check(t, &d, inflight.AtMost)
	})
}
