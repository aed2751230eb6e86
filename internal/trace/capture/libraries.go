//go:build linux

package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/postern-project/postern/internal/trace/usdt"
	"golang.org/x/sys/unix"
)

// libvirtFile reports whether a file name is one of libvirt's libraries, drivers
// or daemons.
func libvirtFile(name string) bool {
	base := path.Base(name)
	switch {
	case strings.HasPrefix(base, "libvirt.so"), strings.HasPrefix(base, "libvirt-") && strings.Contains(base, ".so"),
		strings.HasPrefix(base, "libvirt_driver_") && strings.HasSuffix(base, ".so"):
		return true
	}
	return slices.Contains(daemons, base)
}

// usualPlaces are where distributions put the files of libvirt's that carry
// probes.
func usualPlaces() []string {
	dirs := []string{"/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib"}
	for _, lib := range []string{"/usr/lib", "/usr/local/lib"} {
		names, _ := readNames(lib)
		for _, n := range names {
			if strings.Contains(n, "-linux-") { // Debian's x86_64-linux-gnu
				dirs = append(dirs, lib+"/"+n)
			}
		}
	}
	var out []string
	for _, d := range dirs {
		out = append(out, d+"/libvirt.so.0", d+"/libvirt/connection-driver/libvirt_driver_qemu.so")
	}
	for _, d := range daemons {
		out = append(out, "/usr/sbin/"+d, "/usr/local/sbin/"+d)
	}
	return out
}

// finder looks for libvirt's files on the host, again and again.
type finder struct {
	pids   []int    // only these processes; none means all
	places []string // files to look at though no process has them mapped
	named  bool     // only these files; else all of libvirt's
	// visit is called once for each file that is new, with the open file.
	visit func(*Library, *os.File)
	// gone is called for each process that had such a file mapped and has ended.
	gone func(pid int)

	mu      sync.Mutex
	known   map[fileID]*Library
	placed  map[string]fileID // what stood at each place when it was looked at
	scanned map[int]scan
	denied  int // processes that could not be looked into
}

// scan remembers a process that was looked at.
type scan struct {
	start string // start time: another one means that the PID was reused
	next  time.Time
	wait  time.Duration
}

func newFinder(pids []int, paths []string, visit func(*Library, *os.File)) *finder {
	named := len(paths) > 0
	if len(paths) == 0 {
		paths = usualPlaces()
	}
	return &finder{
		pids: pids, places: paths, named: named, visit: visit,
		known: map[fileID]*Library{}, placed: map[string]fileID{}, scanned: map[int]scan{},
	}
}

// Scan looks at files in their usual places (or at those that were named) and at
// every process that is new or due for another look: a library may be loaded
// later.
func (f *finder) Scan(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pids) == 0 {
		for _, p := range f.places {
			f.place(p)
		}
	}
	pids := f.processes()
	for _, pid := range pids {
		f.process(pid, now)
	}
	f.forget(pids)
}

// forget drops processes that are gone.
func (f *finder) forget(pids []int) {
	alive := make(map[int]bool, len(pids))
	for _, pid := range pids {
		alive[pid] = true
	}
	for pid := range f.scanned {
		if !alive[pid] {
			f.ended(pid)
		}
	}
}

// ended forgets a process.
func (f *finder) ended(pid int) {
	delete(f.scanned, pid)
	had := false
	for _, l := range f.known {
		if i := slices.Index(l.PIDs, pid); i >= 0 {
			l.PIDs = slices.Delete(l.PIDs, i, i+1)
			had = true
		}
	}
	if had && f.gone != nil {
		f.gone(pid)
	}
}

// Libraries returns what was found, by path.
func (f *finder) Libraries() []*Library {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*Library, 0, len(f.known))
	for _, l := range f.known {
		c := *l
		c.PIDs = slices.Clone(l.PIDs)
		out = append(out, &c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

func (f *finder) processes() []int {
	if len(f.pids) > 0 {
		return f.pids
	}
	names, err := readNames("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// rescan is how often a process is looked at again: soon while it starts, seldom
// later.
const (
	rescanFirst = 300 * time.Millisecond
	rescanLast  = 30 * time.Second
)

// settled reports whether a process started so long ago that it has loaded its
// libraries.
func settled(start string) bool {
	const ticks = 100 // a second: USER_HZ
	var up unix.Timespec
	began, err := strconv.ParseInt(start, 10, 64)
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return false
	}
	return up.Sec-began/ticks > 5
}

func (f *finder) process(pid int, now time.Time) {
	s, ok := f.scanned[pid]
	if ok && now.Before(s.next) {
		return
	}
	start := startTime(pid)
	if start == "" {
		f.ended(pid)
		return
	}
	if !ok || s.start != start {
		s = scan{start: start, wait: rescanFirst}
		if settled(start) {
			s.wait = rescanLast
		}
	}
	s.next, s.wait = now.Add(s.wait), min(2*s.wait, rescanLast)
	f.scanned[pid] = s
	maps, err := usdt.Mappings(pid)
	if errors.Is(err, fs.ErrPermission) {
		f.denied++
	}
	for _, m := range maps {
		if f.interesting(m.Path) {
			f.mapped(pid, m)
		}
	}
}

func (f *finder) interesting(name string) bool {
	if f.named {
		return slices.Contains(f.places, name)
	}
	return libvirtFile(name)
}

func (f *finder) mapped(pid int, m usdt.Mapping) {
	file, err := m.Open(pid)
	if err != nil {
		return
	}
	defer file.Close()
	if l := f.file(file, m.Path); l != nil && !slices.Contains(l.PIDs, pid) {
		l.PIDs = append(l.PIDs, pid)
	}
}

func (f *finder) place(name string) {
	fi, err := os.Stat(name)
	if err != nil || !fi.Mode().IsRegular() || f.placed[name] == idOf(fi) {
		return
	}
	f.placed[name] = idOf(fi)
	file, err := os.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	f.file(file, name)
}

func idOf(fi fs.FileInfo) fileID {
	st := fi.Sys().(*syscall.Stat_t)
	return fileID{st.Dev, st.Ino, st.Size, st.Mtim.Nano()}
}

// file registers an open file and visits it if it is new.
func (f *finder) file(file *os.File, name string) *Library {
	fi, err := file.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	id := idOf(fi)
	if l, ok := f.known[id]; ok {
		return l
	}
	l := &Library{Path: name, id: id}
	parsed, err := usdt.Open(file)
	if parsed != nil {
		l.BuildID, l.Machine, l.Probes = parsed.BuildID, strings.TrimPrefix(parsed.Machine.String(), "EM_"),
			parsed.Probes
	}
	l.Err = err
	f.known[id] = l
	if err == nil && f.visit != nil {
		f.visit(l, file)
	}
	return l
}

// startTime returns a process's start time in clock ticks since boot, as
// /proc/PID/stat has it, or "" when there is no such process.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may contain anything.
	_, rest, ok := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return ""
	}
	return f[19]
}

// Find lists libvirt's files on this host, without attaching to anything.
func Find(c Config) ([]*Library, error) {
	f := newFinder(c.Filter.PIDs, c.Paths, nil)
	f.Scan(time.Now())
	libs := f.Libraries()
	if len(libs) == 0 {
		return nil, noProbes(c, libs)
	}
	return libs, nil
}
