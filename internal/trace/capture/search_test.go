package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/bpf"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// attachMessages attaches the daemon's message probes after change has changed their
// sites.
func attachMessages(t *testing.T, l *posterntest.Libvirtd, change func(*bpf.Site)) *source {
	t.Helper()
	k, err := bpf.Load(bpf.Config{PIDs: []int{l.PID}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	file := libraryOf(t, l.PID)
	defer file.Close()
	parsed, err := usdt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	var places []bpf.Place
	for _, p := range parsed.Probes {
		if site := bpf.NewSite(p); site.Kind == event.ServerRx || site.Kind == event.ServerTx {
			change(&site)
			places = append(places, bpf.Place{Site: site, Offset: p.Offset, Semaphore: p.Semaphore})
		}
	}
	if err := k.Attach(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), l.PID, places); err != nil {
		t.Fatal(err)
	}
	return newSource(k)
}

// libraryOf opens the libvirt.so.0 that a daemon has mapped.
func libraryOf(t *testing.T, pid int) *os.File {
	t.Helper()
	maps, err := usdt.Mappings(pid)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(maps, func(m usdt.Mapping) bool {
		return strings.HasPrefix(filepath.Base(m.Path), "libvirt.so.0")
	})
	if i < 0 {
		t.Fatalf("process %d has no libvirt.so.0", pid)
	}
	file, err := maps[i].Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// rest reads what is there.
func rest(t *testing.T, s *source) (messages, payloads int, warnings []string) {
	t.Helper()
	for {
		e := s.next()
		if e == nil {
			return messages, payloads, warnings
		}
		switch {
		case e.Kind == event.Warning:
			warnings = append(warnings, e.Text(0))
		case !e.NoPayload:
			payloads++
			fallthrough
		default:
			messages++
		}
	}
}

// TestMessageIsSearchedFor lets the kernel search for the messages, as in a
// build whose probes have no argument that points to them.
func TestMessageIsSearchedFor(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	s := attachMessages(t, l, func(*bpf.Site) {})
	for id := range uint32(2) {
		if err := s.kernel.Search(id, false); err != nil {
			t.Fatal(err)
		}
		s.site(id).search = true
	}
	versions(t, l, 50)
	if messages, _, _ := rest(t, s); messages != 104 {
		t.Fatalf("%d messages, want 104", messages)
	}
	versions(t, l, 50)
	if messages, payloads, warnings := rest(t, s); messages != 104 || payloads != 104 || len(warnings) > 0 {
		t.Errorf("%d messages, %d payloads, warnings %v", messages, payloads, warnings)
	}
}

// TestOtherStructuresGiveHeadersAndOneWarning makes the probes lie about the
// length, so that nothing in memory fits.
func TestOtherStructuresGiveHeadersAndOneWarning(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	s := attachMessages(t, l, func(s *bpf.Site) {
		s.Args[1] = usdt.Arg{Mode: usdt.Const, Size: 8, Reg: usdt.NoReg, Index: usdt.NoReg, Disp: 4711}
	})
	var warned []string
	for range 5 {
		versions(t, l, 100)
		messages, payloads, warnings := rest(t, s)
		if messages != 204 || payloads != 0 {
			t.Errorf("%d messages, %d payloads", messages, payloads)
		}
		warned = append(warned, warnings...)
	}
	if len(warned) != 1 {
		t.Errorf("warnings: %v", warned)
	}
}
