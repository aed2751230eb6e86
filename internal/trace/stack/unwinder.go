// Package stack unwinds user stacks that were copied together with the
// registers, outside the process, by the call frame information of its modules:
// no frame pointers are needed, and the process may have exited.
package stack

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
)

// Config bounds an unwinder. The zero value works.
type Config struct {
	Frames    int // frames of one stack; 0 means 128
	Modules   int // files kept open, the least used go first; 0 means 512
	Processes int // processes whose maps are remembered; 0 means 1024
	Memory    int // bytes of indexes and names kept of files, roughly; 0 means 256 MiB
	// Debug lists folders with debug files by build-id; nil means /usr/lib/debug.
	Debug []string
}

// Unwinder unwinds stacks that were copied from processes of this host. It keeps
// what it learns of files and processes, and so can unwind a stack of a process
// that has exited, if it saw the process while it ran. Its methods may be called from
// several goroutines, but the frames that one call returns stand only until the
// next call.
type Unwinder struct {
	c      Config
	arch   *arch
	frames []event.Frame
	sps    []uint64 // the stack pointer in each of frames
	sure   int      // frames up to the first whose frame pointer was concluded; 0 where there is none

	mu      sync.Mutex
	procs   map[int]*process
	modules map[identity]*module
	broken  map[identity]failure
	count   uint64
}

// debugDir is where distributions install debug files.
const debugDir = "/usr/lib/debug"

// identity names a file as the kernel does.
type identity struct {
	dev   string
	inode uint64
	path  string // of what has no inode
}

// A failure to open a file, which is tried again after a while: it may have been
// the process's end.
type failure struct {
	err error
	at  time.Time
}

type process struct {
	maps []mapping
	read time.Time // when the maps were read last
	used uint64
}

// How long a failure is remembered: that an address is in no mapping, that
// a file cannot be read.
const (
	rereadAfter = 100 * time.Millisecond
	reopenAfter = 2 * time.Second
)

// New returns an unwinder for this machine's architecture.
func New(c Config) *Unwinder {
	if c.Frames <= 0 {
		c.Frames = 128
	}
	if c.Modules <= 0 {
		c.Modules = 512
	}
	if c.Processes <= 0 {
		c.Processes = 1024
	}
	if c.Memory <= 0 {
		c.Memory = 256 << 20
	}
	if c.Debug == nil {
		c.Debug = []string{debugDir}
	}
	u := &Unwinder{
		c: c, procs: make(map[int]*process), modules: make(map[identity]*module),
		broken: make(map[identity]failure),
	}
	switch runtime.GOARCH {
	case "amd64":
		u.arch = &amd64
	case "arm64":
		u.arch = &arm64
	}
	return u
}

// Close closes the files that are open.
func (u *Unwinder) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.modules {
		m.close()
	}
	clear(u.modules)
}

// Unwind sets the frames of an event that carries a stack. They stand until the
// next call.
func (u *Unwinder) Unwind(e *event.Event) {
	if len(e.Stack) > 0 {
		e.Frames, _ = u.Frames(e.PID, e.Regs, e.Stack, e.Return)
	}
}

// Prepare reads the maps of an event's process and opens its files, if it is a new
// one. It is quick: a process may live for milliseconds.
func (u *Unwinder) Prepare(e *event.Event) {
	u.mu.Lock()
	known := u.procs[e.PID] != nil
	u.mu.Unlock()
	if !known {
		_ = u.prepare(e.PID) // if it is gone already, its frames say so
	}
}

func (u *Unwinder) prepare(pid int) error {
	maps, err := readMaps(pid)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keep(pid, maps)
	for i := range maps {
		if maps[i].exec {
			_, _ = u.module(pid, &maps[i]) // a file that cannot be read costs its own frames only
		}
	}
	return nil
}

// Watch meets a process and reads the names in its files as well, so that its
// first stacks are unwound without delay.
func (u *Unwinder) Watch(pid int) error {
	if err := u.prepare(pid); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, maps := 0, u.procs[pid].maps; i < len(maps); i++ {
		if m, err := u.module(pid, &maps[i]); err == nil && maps[i].exec {
			u.readNames(pid, m)
		}
	}
	return nil
}

// Frames unwinds a stack from a copy of struct pt_regs and of the stack's bytes
// from the stack pointer upwards, in which one return address may be the kernel's own. The
// error says why the last frame is not the stack's outermost one; nil means that
// it is. The frames stand until the next call.
func (u *Unwinder) Frames(pid int, regs, stack []byte, ret event.Return) ([]event.Frame, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.arch == nil {
		return nil, errors.New("stacks cannot be unwound on " + runtime.GOARCH)
	}
	r, ok := u.arch.load(regs)
	if !ok {
		return nil, errors.New("the registers were not copied")
	}
	sp, _ := r.get(u.arch.sp)
	return u.unwind(pid, r, &memory{base: sp, bytes: stack}, ret)
}

// unwind sets the frames from the innermost one's registers on, and where the stack
// stands in each. What follows from a frame pointer that was concluded stays only if it leads
// to the outermost frame.
func (u *Unwinder) unwind(pid int, r registers, mem *memory, ret event.Return) ([]event.Frame, error) {
	u.count++
	u.frames, u.sps, u.sure = u.frames[:0], u.sps[:0], 0
	err := u.walk(pid, r, mem, ret)
	if err != nil && u.sure > 0 {
		u.frames, u.sps = u.frames[:u.sure], u.sps[:u.sure]
	}
	return u.frames, err
}

func (u *Unwinder) walk(pid int, r registers, mem *memory, ret event.Return) error {
	called := false // the frame's pc is where a call returns to
	for len(u.frames) < u.c.Frames {
		pc, _ := r.get(u.arch.pc)
		if pc == 0 && called {
			return nil
		}
		before, _ := r.get(u.arch.sp)
		u.sps = append(u.sps, before)
		row, err := u.frame(pid, &r, called)
		if err != nil {
			return err
		}
		if row.last {
			return nil
		}
		if r, err = u.arch.step(row, &r, mem); err != nil {
			return err
		}
		after, _ := r.get(u.arch.sp)
		if !row.signal && (after < before || after == before && called) {
			return errors.New("the stack does not grow")
		}
		if after == ret.SP && u.unmapped(pid, &r) {
			r.set(u.arch.pc, ret.PC)
		}
		called = !row.signal
	}
	return errors.New("the stack has more frames than are shown")
}

// unmapped reports whether a frame's pc is in no file, as is the kernel's address
// that hides another.
func (u *Unwinder) unmapped(pid int, r *registers) bool {
	pc, _ := r.get(u.arch.pc)
	mp := u.mapping(pid, pc)
	return mp == nil || mp.path == "[uprobes]"
}

// frame adds the frame that has these registers, and returns how to go on from it.
func (u *Unwinder) frame(pid int, r *registers, called bool) (*row, error) {
	pc, _ := r.get(u.arch.pc)
	at := pc
	if called {
		at-- // the call may be its function's last instruction
	}
	mp := u.mapping(pid, at)
	if mp == nil {
		u.frames = append(u.frames, event.Frame{PC: pc})
		return nil, errors.New("an address is in no file")
	}
	f := event.Frame{
		PC: pc, Module: strings.TrimSuffix(mp.path, " (deleted)"), ModuleOffset: pc - mp.base,
		ModuleSize: mp.size,
	}
	m, err := u.module(pid, mp)
	if err != nil {
		u.frames = append(u.frames, f)
		return nil, err
	}
	m.used = u.count
	f.BuildID = m.id
	addr, ok := m.address(at - mp.start + mp.offset)
	if !ok {
		u.frames = append(u.frames, f)
		return nil, errNoFrameInfo
	}
	row, err := m.row(addr)
	u.name(pid, m, addr, pc-at, row, &f)
	u.frames = append(u.frames, f)
	if err == nil && m.conclude(u.arch, row, addr, called, r) && u.sure == 0 {
		u.sure = len(u.frames)
	}
	return row, err
}

func (u *Unwinder) readNames(pid int, m *module) {
	if m.names == nil {
		m.names = readSymbols(pid, m, u.c.Debug)
		u.trim(m)
	}
}

// name fills in the function at addr, back bytes before the frame's pc.
func (u *Unwinder) name(pid int, m *module, addr, back uint64, r *row, f *event.Frame) {
	if r != nil && r.signal {
		addr, back = addr+back, 0 // no code called it
	}
	u.readNames(pid, m)
	if s := m.names.find(addr); s != nil {
		f.Symbol, f.Start, f.Size = m.names.name(s), s.addr, uint64(s.size)
		if f.Size == 0 && r != nil && r.begin <= s.addr {
			f.Size = r.end - s.addr
		}
	}
	if r != nil && f.Size == 0 {
		f.Symbol, f.Start, f.Size = "", r.begin, r.end-r.begin
	}
	if f.Size > 0 {
		f.Offset = addr + back - f.Start
	}
}

// mapping returns the mapping that holds an address of a process, or nil.
func (u *Unwinder) mapping(pid int, addr uint64) *mapping {
	p := u.procs[pid]
	if p != nil {
		p.used = u.count
		if m := find(p.maps, addr); m != nil {
			return m
		}
		if time.Since(p.read) < rereadAfter {
			return nil
		}
		p.read = time.Now()
	}
	maps, err := readMaps(pid)
	if err != nil {
		return nil
	}
	u.keep(pid, maps)
	return find(maps, addr)
}

func (u *Unwinder) keep(pid int, maps []mapping) {
	if _, ok := u.procs[pid]; !ok && len(u.procs) >= u.c.Processes {
		u.dropProcess()
	}
	u.procs[pid] = &process{maps: maps, read: time.Now(), used: u.count}
}

func (u *Unwinder) dropProcess() {
	oldest, at := 0, ^uint64(0)
	for pid, p := range u.procs {
		if p.used < at {
			oldest, at = pid, p.used
		}
	}
	delete(u.procs, oldest)
}

func (u *Unwinder) module(pid int, mp *mapping) (*module, error) {
	id := identity{dev: mp.dev, inode: mp.inode}
	if mp.inode == 0 {
		id.path = mp.path
	}
	if m, ok := u.modules[id]; ok {
		return m, nil
	}
	if b, ok := u.broken[id]; ok && time.Since(b.at) < reopenAfter {
		return nil, b.err
	}
	m, err := openModule(pid, mp)
	if err != nil {
		if len(u.broken) >= 4*u.c.Modules {
			clear(u.broken)
		}
		u.broken[id] = failure{err, time.Now()}
		return nil, err
	}
	if len(u.modules) >= u.c.Modules {
		u.dropModule()
	}
	delete(u.broken, id)
	m.used = u.count
	u.modules[id] = m
	u.trim(m)
	return m, nil
}

// trim forgets the files that were used longest ago, but for the one in use, until the
// rest is within bounds.
func (u *Unwinder) trim(use *module) {
	total := 0
	for _, m := range u.modules {
		total += m.size()
	}
	for total > u.c.Memory && len(u.modules) > 1 {
		use.used = ^uint64(0)
		total -= u.dropModule()
	}
	use.used = u.count
}

// dropModule forgets the file that was needed least, and returns its size.
func (u *Unwinder) dropModule() int {
	var oldest identity
	at := ^uint64(0)
	for id, m := range u.modules {
		if m.used <= at {
			oldest, at = id, m.used
		}
	}
	m := u.modules[oldest]
	m.close()
	delete(u.modules, oldest)
	return m.size()
}
