package record

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// flown is a flight recorder that a test hands events to, and what it has kept.
type flown struct {
	*FlightRecorder
	t       *testing.T
	now     uint64
	serial  uint32
	kept    []string // files
	reasons []string
	removed []string
	failed  []error
}

func fly(t *testing.T, condition string, f Flight) *flown {
	t.Helper()
	x := &flown{t: t}
	var err error
	if f.Keep, err = NewCondition(condition); err != nil {
		t.Fatal(err)
	}
	if f.Name == "" {
		f.Name = filepath.Join(t.TempDir(), "libvirt.trace")
	}
	f.Kept = func(file, reason string) { x.kept, x.reasons = append(x.kept, file), append(x.reasons, reason) }
	f.Removed = func(file string) { x.removed = append(x.removed, file) }
	f.Failed = func(_ string, err error) { x.failed = append(x.failed, err) }
	f.now = func() uint64 { return x.now }
	x.FlightRecorder = newFlightRecorder(f)
	return x
}

// at hands over an event of the daemon so many seconds after the beginning.
func (x *flown) at(second float64, k event.Kind, status, serial uint32) error {
	typ, payload := uint32(0), tracetest.Word(5)
	if k == event.ServerTx {
		typ, payload = 1, tracetest.NoDomain
	}
	e := tracetest.Message(int(second*1000), k, 22, typ, status, serial, payload)
	x.now = e.Mono
	return errors.Join(x.Event(e), x.Idle())
}

// call hands over a call and its answer.
func (x *flown) call(second, took float64, status uint32) {
	x.t.Helper()
	x.serial++
	if err := errors.Join(x.at(second, event.ServerRx, 0, x.serial),
		x.at(second+took, event.ServerTx, status, x.serial)); err != nil {
		x.t.Fatal(err)
	}
}

// seconds returns the whole seconds at which a file has events.
func seconds(t *testing.T, file string) []int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	k := &tracetest.Collector{}
	if _, err := Replay(bytes.NewReader(b), correlate.Filter{}, false, k); err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, e := range k.All() {
		if e.Kind.RPC() {
			out = append(out, int((e.Mono-tracetest.Begin)/1e9))
		}
	}
	return slices.Compact(out)
}

// TestWhatIsAroundACallIsKept keeps what was up to a minute before a slow call and up to
// a minute after it, to the length of a segment.
func TestWhatIsAroundACallIsKept(t *testing.T) {
	x := fly(t, `took > duration("5s") || error`, Flight{Ring: 64 << 20})
	for s := range 300 {
		took := 0.01
		if s == 150 {
			took = 5.5
		}
		x.call(float64(s)*6, took, 0)
	}
	x.call(3000, 0.001, 1) // failed
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if len(x.kept) != 2 || !strings.Contains(x.reasons[0],
		"remote.domain_lookup_by_id by dan virsh[4711]: ok, 5.50 s") ||
		!strings.Contains(x.reasons[1], "failed, 1.00 ms") {
		t.Fatalf("kept %q because %q", x.kept, x.reasons)
	}
	if want := filepath.Join(filepath.Dir(x.Name), "libvirt-20261124T061505.500Z.trace"); x.kept[0] != want {
		t.Errorf("the file is %s, not %s", x.kept[0], want)
	}
	got := seconds(t, x.kept[0])
	if first, last := got[0], got[len(got)-1]; first < 834 || first > 846 || last < 960 || last > 972 ||
		!slices.Contains(got, 900) {
		t.Errorf("of seconds %v", got)
	}
	if got := seconds(t, x.kept[1]); !slices.Equal(got, []int{3000}) {
		t.Errorf("of the failure: seconds %v", got)
	}
	if fi, err := os.Stat(x.kept[0]); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
}

// TestACallThatHangsIsKept keeps what is around a call while it has no answer.
func TestACallThatHangsIsKept(t *testing.T) {
	x := fly(t, `open && took >= duration("10s")`, Flight{Ring: 64 << 20, After: 5 * time.Second})
	if err := x.at(1, event.ServerRx, 0, 99); err != nil {
		t.Fatal(err)
	}
	for s := 2; s < 40; s++ {
		x.call(float64(s), 0.01, 0)
	}
	if len(x.kept) != 1 || !strings.Contains(x.reasons[0], "still runs, 10.") {
		t.Fatalf("kept %q because %q", x.kept, x.reasons)
	}
	if got := seconds(t, x.kept[0]); got[0] != 1 || got[len(got)-1] < 15 || got[len(got)-1] > 17 {
		t.Errorf("of seconds %v", got)
	}
	if err := x.at(41, event.ServerTx, 0, 99); err != nil || x.incident != nil {
		t.Errorf("its answer begins another file: %v", err)
	}
}

// TestFurtherCallsProlongAFile writes one file of calls that follow each other.
func TestFurtherCallsProlongAFile(t *testing.T) {
	x := fly(t, "error", Flight{Ring: 64 << 20, After: 10 * time.Second})
	for s := range 10 {
		x.call(float64(8*s), 0.01, 1)
	}
	x.call(100, 0.01, 0)
	if got := seconds(t, x.kept[0]); len(x.kept) != 1 || len(got) < 10 {
		t.Errorf("%d files, the first of seconds %v", len(x.kept), got)
	}
}

// TestAFileThatCannotBeWritten ends the trace with the reason, where nothing is told of it.
func TestAFileThatCannotBeWritten(t *testing.T) {
	x := fly(t, "error", Flight{Ring: minRing})
	x.Failed = nil
	if err := os.Remove(filepath.Dir(x.Name)); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(x.at(1, event.ServerRx, 0, 1), x.at(2, event.ServerTx, 1, 1))
	if !errors.Is(err, os.ErrNotExist) || x.incident != nil {
		t.Errorf("%v", err)
	}
}

func TestTheRingIsBounded(t *testing.T) {
	x := fly(t, "false", Flight{Ring: minRing})
	for i := range 60_000 {
		x.call(float64(i)/10_000, 0.00001, 0)
		if i%1000 != 0 {
			continue
		}
		size := int64(0)
		for _, s := range x.ring.segments {
			size += int64(s.buf.Cap())
		}
		if size != x.ring.size || size > minRing {
			t.Fatalf("%d bytes, counted as %d", size, x.ring.size)
		}
	}
	if len(x.ring.segments) < 4 {
		t.Errorf("%d segments of a full ring", len(x.ring.segments))
	}
}

// TestFilesAreBounded removes the oldest of the files that have reached the limit together, and
// goes on.
func TestFilesAreBounded(t *testing.T) {
	x := fly(t, "error", Flight{Ring: minRing, Limit: 2000, Before: time.Second, After: time.Second})
	for s := range 40 {
		x.call(float64(20*s), 0.01, 1)
	}
	x.call(1000, 0.01, 0)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(x.Name), "*"))
	if err != nil || len(x.kept) != 40 || len(x.removed) == 0 || !slices.Equal(left, x.kept[len(x.removed):]) ||
		!slices.Equal(x.removed, x.kept[:len(x.removed)]) {
		t.Errorf("%d are kept, %d removed, %d left: %v", len(x.kept), len(x.removed), len(left), err)
	}
	size := int64(0)
	for _, file := range left {
		fi, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size() - int64(len(recordingMagic))
		seconds(t, file) // it can be read
	}
	if size > 2000 || size < 1000 {
		t.Errorf("%d bytes are left", size)
	}
}

// TestOneFileIsBounded ends a file that alone reaches the limit; until its time is over, none begins.
func TestOneFileIsBounded(t *testing.T) {
	x := fly(t, "error", Flight{Ring: minRing, Limit: 10_000})
	for s := range 50 {
		x.call(float64(s), 0.01, 1)
	}
	if len(x.kept) != 1 || len(x.removed) != 0 || x.incident != nil {
		t.Fatalf("%d are kept, %d removed", len(x.kept), len(x.removed))
	}
	if fi, err := os.Stat(x.kept[0]); err != nil || fi.Size() > 10_100 || fi.Size() < 5000 {
		t.Errorf("%v, %v", fi, err)
	}
	seconds(t, x.kept[0]) // it can be read
	for s := range 50 {
		x.call(float64(1000+s), 0.01, 1)
	}
	if len(x.kept) != 2 || !slices.Equal(x.removed, x.kept[:1]) {
		t.Errorf("later %q are kept, %q removed", x.kept, x.removed)
	}
}

// TestAFileIsNotProlongedForEver has a call fail twice a minute: files end, and others begin.
func TestAFileIsNotProlongedForEver(t *testing.T) {
	x := fly(t, "error", Flight{Ring: 64 << 20})
	for s := range 60 {
		x.call(float64(30*s), 0.01, 1)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if len(x.kept) < 4 {
		t.Errorf("%d files of half an hour", len(x.kept))
	}
	for _, file := range x.kept {
		if got := seconds(t, file); got[len(got)-1]-got[0] > 420 {
			t.Errorf("%s has seconds %v", file, got)
		}
	}
}

// TestADiskThatIsFull says it, queues nothing more, and begins a file again later.
func TestADiskThatIsFull(t *testing.T) {
	x := fly(t, "error", Flight{Ring: minRing})
	x.call(0, 0.01, 1)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.incident.close(), os.Truncate(x.incident.name, 0)); err != nil {
		t.Fatal(err)
	}
	i := newIncident(full, x.incident.name, "")
	i.until, i.latest = x.incident.until, x.incident.latest
	x.incident = i
	i.add([]byte("event"))
	err = <-i.done
	if i.done <- err; !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if i.add([]byte("event")); len(i.queue) > 0 {
		t.Error("events are queued for a file that cannot be written")
	}
	for s := range 10 {
		x.call(float64(s+1), 0.01, 1)
	}
	if x.incident != nil || len(x.kept) != 0 || len(x.failed) != 1 || !errors.Is(x.failed[0], syscall.ENOSPC) {
		t.Fatalf("kept %q, failed %v", x.kept, x.failed)
	}
	if _, err := os.Stat(i.name); !errors.Is(err, os.ErrNotExist) || i.size != 0 {
		t.Errorf("the file without events is left, or counts %d bytes: %v", i.size, err)
	}
	x.call(100, 0.01, 1)
	if err := x.Close(); err != nil || len(x.kept) != 1 {
		t.Errorf("when there is room again, %q is kept: %v", x.kept, err)
	}
}

// TestADirectoryThatIsGone says that no file can begin, goes on, and begins one of the same
// call when there is a directory again.
func TestADirectoryThatIsGone(t *testing.T) {
	x := fly(t, `took > duration("5s")`, Flight{Ring: minRing})
	dir := filepath.Dir(x.Name)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.at(0, event.ServerRx, 0, 100), x.at(10, event.ServerRx, 0, 101)); err != nil {
		t.Fatal(err)
	}
	if len(x.failed) != 1 || !errors.Is(x.failed[0], os.ErrNotExist) {
		t.Errorf("failed %v", x.failed)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.at(100, event.ServerTx, 0, 100), x.Close()); err != nil || len(x.kept) != 1 {
		t.Errorf("%q is kept: %v", x.kept, err)
	}
}

// TestConditionThatCannotBeDecided has clients with calls of which the condition is neither true
// nor false: it is said once, and other calls are kept.
func TestConditionThatCannotBeDecided(t *testing.T) {
	x := fly(t, `error ? true : int(machine) > 5`, Flight{Ring: minRing})
	x.call(1, 0.01, 0)
	x.call(2, 0.01, 0)
	x.call(3, 0.01, 1)
	if err := x.Close(); err != nil || len(x.failed) != 1 || len(x.kept) != 1 {
		t.Errorf("failed %v, kept %q: %v", x.failed, x.kept, err)
	}
}

func TestConditions(t *testing.T) {
	of := func(k event.Kind, status uint32) facts {
		e := tracetest.Message(1, k, 23, 1, status, 1, nil)
		e.Call = &event.Call{
			Prog: e.Prog, Proc: e.Proc, Peer: e.Peer, ArgsLen: 8, Args: tracetest.String("vm1"),
		}
		return newFacts(e, 3*time.Second, false)
	}
	for text, want := range map[string]bool{
		`took == duration("3s") && !open`: true,
		`error`:                           true,
		`procedure == "remote.domain_lookup_by_name"`:         true,
		`procedure.startsWith("remote.") && user == "dan"`:    true,
		`client == "dan virsh[4711]" && daemon == "libvirtd"`: true,
		`machine == "vm1"`: true,
		`machine in ["vm2", "vm3"] || user == "root" || took > duration("1h")`: false,
	} {
		c, err := NewCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.holds(of(event.ServerTx, 1)); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "took", "took > 5", `nosuch == ""`, "error ||"} {
		if _, err := NewCondition(bad); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := (Flight{Ring: 1, Keep: &Condition{}}).Validate(); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("a ring of a byte: %v", err)
	}
	nowhere := Flight{Ring: minRing, Keep: &Condition{}, Name: filepath.Join(t.TempDir(), "none", "trace")}
	if err := nowhere.Validate(); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("no directory: %v", err)
	}
	if err := (Flight{Ring: minRing}).Validate(); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("no condition: %v", err)
	}
}
