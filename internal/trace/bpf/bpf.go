// Package bpf loads the programs that run when a libvirt probe is hit, attaches
// them, and reads what they hand over.
package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/postern-project/postern/internal/trace/event"
	"golang.org/x/sys/unix"
)

// Config says what the kernel part copies and keeps. The zero value works.
type Config struct {
	Buffer int // bytes of the ring buffer; 0 means 4 MiB; rounded up to a power of two
	// most bytes of a message or text that are copied: up to 64 KiB; 0 means 16 KiB, negative none
	Payload int
	// bytes of stack that are copied where a site wants it; 0 means 16 KiB, which is the most
	Stack      int
	PIDs       []int             // processes to see; none means all
	Procedures []event.Procedure // procedures to see; nil means all
	Types      uint32            // bit n: RPC messages of type n; 0 means all
	Statuses   uint32            // bit n: replies of status n; 0 means all
	OneByOne   bool              // attach each place by a perf event of its own, as kernels before 6.6 need anyway
	// Known is the last procedure of each program that is known: what is in none of them is
	// seen, too, whatever Procedures are. nil means that only Procedures are.
	Known map[uint32]int32
}

const (
	defaultBuffer  = 4 << 20 // stays in the processor's cache: 16 MiB cost a quarter of a microsecond a record
	defaultCapture = 16 << 10
	maxPayload     = 64 << 10
	maxSites       = 4096
)

// Validate checks c.
func (c Config) Validate() error {
	switch {
	case c.Buffer != 0 && c.Buffer < 4<<10 || c.Buffer > 1<<30:
		return fmt.Errorf("a ring buffer of %d bytes: between 4 KiB and 1 GiB", c.Buffer)
	case c.Payload > maxPayload:
		return fmt.Errorf("payloads of %d bytes: at most %d are copied", c.Payload, maxPayload)
	case c.Stack < 0 || c.Stack > defaultCapture:
		return fmt.Errorf("stacks of %d bytes: at most %d are copied", c.Stack, defaultCapture)
	case len(c.Procedures) > 8192:
		return fmt.Errorf("%d procedures: at most 8192", len(c.Procedures))
	case len(c.Known) > 256:
		return fmt.Errorf("%d programs: at most 256", len(c.Known))
	case len(c.PIDs) > 4096:
		return fmt.Errorf("%d processes: at most 4096", len(c.PIDs))
	}
	return nil
}

// Kernel is the loaded programs and maps. Attach, Add and Read may be called
// from different goroutines, each from one at a time.
type Kernel struct {
	spec  *ebpf.CollectionSpec
	coll  *ebpf.Collection // the maps, and the programs that are the same for all files
	multi bool
	ring  *ring
	woken uint64 // how many wake-ups the reader has answered

	mu    sync.Mutex
	sites []Site
	index map[string]uint32
	links []link.Link
}

// Load loads the programs. Its errors are raw: see [Explain].
func Load(c Config) (*Kernel, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	// Kernels before 5.11 count maps against this limit.
	if err := rlimit.RemoveMemlock(); err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	spec, err := loadProbe()
	if err != nil {
		return nil, err
	}
	if err := c.apply(spec); err != nil {
		return nil, err
	}
	k := &Kernel{spec: spec, multi: !c.OneByOne && multiUprobes(), index: map[string]uint32{}}
	if !k.multi {
		for _, p := range spec.Programs {
			p.AttachType = ebpf.AttachNone
		}
	}
	common := spec.Copy()
	delete(common.Programs, probeProgOnProbe)
	if k.coll, err = ebpf.NewCollection(common); err != nil {
		return nil, fmt.Errorf("load the probe programs: %w", err)
	}
	if err := k.fill(c); err != nil {
		k.coll.Close()
		return nil, err
	}
	return k, nil
}

// program loads the program for the probes of one file: its part that reads the
// arguments is made for these sites.
func (k *Kernel) program(sites map[uint32]Site) (*ebpf.Program, error) {
	spec := k.spec.Copy()
	probe := spec.Programs[probeProgOnProbe]
	var err error
	if probe.Instructions, err = specialize(probe.Instructions, sites); err != nil {
		return nil, err
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{probeProgOnProbe: probe}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: k.coll.Maps})
	if err != nil {
		return nil, fmt.Errorf("load the program for a file's probes: %w", err)
	}
	defer coll.Close()
	return coll.DetachProgram(probeProgOnProbe), nil
}

// apply sets the programs' constants and the ring buffer's size.
func (c Config) apply(spec *ebpf.CollectionSpec) error {
	size := uint32(os.Getpagesize())
	for want := c.Buffer; int(size) < want || want == 0 && size < defaultBuffer; {
		size *= 2
	}
	spec.Maps[probeMapEvents].MaxEntries = size
	payload, stack := uint32(defaultCapture), uint32(defaultCapture)
	if c.Payload != 0 {
		payload = uint32(max(c.Payload, 0))
	}
	if c.Stack != 0 {
		stack = uint32(c.Stack)
	}
	set := map[string]any{
		probeVarPayloadMax: payload,
		probeVarStackMax:   stack,
		probeVarWakeAt:     uint64(size / 8),
	}
	if c.Types != 0 {
		set[probeVarTypeMask] = c.Types
	}
	if c.Statuses != 0 {
		set[probeVarStatusMask] = c.Statuses
	}
	if len(c.PIDs) > 0 {
		set[probeVarFilterPids] = uint8(1)
	}
	if c.Procedures != nil {
		set[probeVarFilterProcedures] = uint8(1)
	}
	if c.Known != nil {
		set[probeVarPassUnknown] = uint8(1)
	}
	if dev, ino, inner := pidNamespace(); inner {
		set[probeVarNsDev], set[probeVarNsIno] = dev, ino
	} else if at, err := peerOffsets(); err == nil {
		set[probeVarAt] = at
	}
	for name, v := range set {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// firstPIDNamespace is the inode of the first PID namespace: PROC_PID_INIT_INO
// in include/linux/proc_ns.h.
const firstPIDNamespace = 0xEFFFFFFC

// pidNamespace returns the tracer's PID namespace, and whether it is another
// than the machine's first.
func pidNamespace() (dev, ino uint64, inner bool) {
	fi, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return 0, 0, false
	}
	st := fi.Sys().(*syscall.Stat_t)
	return st.Dev, st.Ino, st.Ino != firstPIDNamespace
}

func (k *Kernel) fill(c Config) error {
	for _, pid := range c.PIDs {
		if err := k.AddPID(pid); err != nil {
			return err
		}
	}
	for _, p := range c.Procedures {
		key := probeProcedure{Prog: p.Prog, Proc: uint32(p.Proc)}
		if err := k.coll.Maps[probeMapProcedures].Put(&key, uint8(1)); err != nil {
			return fmt.Errorf("filter procedures: %w", err)
		}
	}
	for prog, last := range c.Known {
		if err := k.coll.Maps[probeMapPrograms].Put(prog, uint32(last)); err != nil {
			return fmt.Errorf("know programs: %w", err)
		}
	}
	var err error
	k.ring, err = newRing(k.coll.Maps[probeMapEvents])
	return err
}

// AddPID lets one more process through the filter of Config.PIDs.
func (k *Kernel) AddPID(pid int) error {
	if err := k.coll.Maps[probeMapPids].Put(uint32(pid), uint8(1)); err != nil {
		return fmt.Errorf("filter process %d: %w", pid, err)
	}
	return nil
}

// Place is a probe's place in a file: offsets as the kernel wants them.
type Place struct {
	Site      Site
	Offset    uint64
	Semaphore uint64
}

// Attach attaches the places of one file, named by a path that stays what it is
// until Attach returns; in one process when pid is not 0, else wherever the file
// is mapped, now and later. The returned link detaches when closed. Kernel keeps
// a reference to it: one that is garbage collected would detach the probes.
func (k *Kernel) Attach(path string, pid int, places []Place) error {
	var a attachment
	sites := map[uint32]Site{}
	for _, p := range places {
		id, err := k.add(p.Site)
		if err != nil {
			return err
		}
		sites[id] = p.Site
		a.offsets, a.refs, a.cookies = append(a.offsets, p.Offset), append(a.refs, p.Semaphore),
			append(a.cookies, uint64(id))
	}
	prog, err := k.program(sites)
	if err != nil {
		return err
	}
	defer prog.Close() // the link holds it
	return k.attach(prog, path, pid, a)
}

// AttachBegin notes, for sites with Answer, when a thread enters the function at
// offset.
func (k *Kernel) AttachBegin(path string, pid int, offset uint64) error {
	return k.attach(k.coll.Programs[probeProgOnBegin], path, pid,
		attachment{[]uint64{offset}, []uint64{0}, []uint64{0}, false})
}

// AttachEnter notes where the function at offset returns to, which an
// AttachReturn that comes after hides from the stacks of what happens in it.
func (k *Kernel) AttachEnter(path string, pid int, offset uint64) error {
	return k.attach(k.coll.Programs[probeProgOnEnter], path, pid,
		attachment{[]uint64{offset}, []uint64{0}, []uint64{0}, false})
}

// AttachReturn reports the returns of the function at offset as those of site.
func (k *Kernel) AttachReturn(path string, pid int, offset uint64, s Site) error {
	id, err := k.add(s)
	if err != nil {
		return err
	}
	return k.attach(k.coll.Programs[probeProgOnReturn], path, pid,
		attachment{[]uint64{offset}, []uint64{0}, []uint64{uint64(id)}, true})
}

type attachment struct {
	offsets, refs, cookies []uint64
	ret                    bool
}

func (k *Kernel) attach(prog *ebpf.Program, path string, pid int, a attachment) error {
	if len(a.offsets) == 0 {
		return nil
	}
	ex, err := link.OpenExecutable(path)
	if err != nil {
		return err
	}
	if !k.multi {
		return k.attachEach(ex, prog, pid, a)
	}
	opts := &link.UprobeMultiOptions{Addresses: a.offsets, Cookies: a.cookies, PID: uint32(pid)}
	if slices.ContainsFunc(a.refs, func(r uint64) bool { return r != 0 }) {
		opts.RefCtrOffsets = a.refs
	}
	open := ex.UprobeMulti
	if a.ret {
		open = ex.UretprobeMulti
	}
	l, err := open(nil, prog, opts)
	if err != nil {
		return err
	}
	k.keep(l)
	return nil
}

// attachEach is attach for kernels before 6.6: one perf event a place.
func (k *Kernel) attachEach(ex *link.Executable, prog *ebpf.Program, pid int, a attachment) error {
	open := ex.Uprobe
	if a.ret {
		open = ex.Uretprobe
	}
	for i := range a.offsets {
		l, err := open("", prog, &link.UprobeOptions{
			Address: a.offsets[i], RefCtrOffset: a.refs[i], Cookie: a.cookies[i], PID: pid,
		})
		if err != nil {
			return err
		}
		k.keep(l)
	}
	return nil
}

func (k *Kernel) keep(l link.Link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.links = append(k.links, l)
}

// add gives a site its number. Places with the same probe and arguments share
// one.
func (k *Kernel) add(s Site) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := fmt.Sprintf("%s:%s %s %+v", s.Provider, s.Name, s.Spec, s)
	if id, ok := k.index[key]; ok {
		return id, nil
	}
	id := uint32(len(k.sites))
	if id >= maxSites {
		return 0, fmt.Errorf("more than %d different probe places", maxSites)
	}
	ks := s.kernel()
	if err := k.coll.Maps[probeMapSites].Put(id, &ks); err != nil {
		return 0, fmt.Errorf("describe %s:%s to the kernel: %w", s.Provider, s.Name, err)
	}
	k.sites = append(k.sites, s)
	k.index[key] = id
	return id, nil
}

// Site returns what was attached under a record's site number.
func (k *Kernel) Site(id uint32) (Site, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if int(id) >= len(k.sites) {
		return Site{}, false
	}
	return k.sites[id], true
}

// Search has the kernel search anew for the messages of a site that were not where
// they were expected; with giveUp it stops searching, and records of the site hold
// headers only.
func (k *Kernel) Search(id uint32, giveUp bool) error {
	s, ok := k.Site(id)
	if !ok {
		return fmt.Errorf("no site %d", id)
	}
	ks := s.kernel()
	ks.Where = whereSearch
	if giveUp {
		ks.Where = whereNowhere
	}
	return k.coll.Maps[probeMapSites].Put(id, &ks)
}

// Read reads the next record. It reports false when there is none.
func (k *Kernel) Read(r *Record) bool {
	for b := k.ring.next(); b != nil; b = k.ring.next() {
		if r.parse(b) == nil {
			return true
		}
	}
	return false
}

// Wait returns when there is a record that cannot wait, or at the deadline; most
// records come without a notice. It returns os.ErrClosed after Close.
func (k *Kernel) Wait(deadline time.Time) error {
	err := k.ring.wait(deadline, func() bool { return k.wakeups() != k.woken })
	k.woken = k.wakeups()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// Yield lets the threads run that wait for this processor: a daemon's thread that
// wakes up would wait for the reader's whole time slice, and its clients with it.
// While the ring fills it does nothing.
func (k *Kernel) Yield() {
	if !k.ring.filling() {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// wakeups returns how often the kernel has woken the reader.
func (k *Kernel) wakeups() uint64 {
	var n uint64
	if err := k.coll.Variables[probeVarWakeups].Get(&n); err != nil {
		return 0
	}
	return n
}

// Loss is how many records of one probe in one process were lost.
type Loss struct {
	PID  int // 0 when it is not known which
	Site uint32
	Lost uint64
}

// Losses returns all losses since Load.
func (k *Kernel) Losses() ([]Loss, error) {
	var out []Loss
	var key probeLoss
	var n uint64
	it := k.coll.Maps[probeMapLost].Iterate()
	for it.Next(&key, &n) {
		out = append(out, Loss{PID: int(key.Pid), Site: key.Site, Lost: n})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read what was lost: %w", err)
	}
	if err := k.coll.Variables[probeVarLostNowhere].Get(&n); err == nil && n > 0 {
		out = append(out, Loss{Lost: n})
	}
	return out, nil
}

// Lost returns how many records were lost since Load.
func (k *Kernel) Lost() uint64 {
	var n uint64
	if err := k.coll.Variables[probeVarLostTotal].Get(&n); err != nil {
		return 0
	}
	return n
}

// Detach detaches every probe; what is in the ring can still be read.
func (k *Kernel) Detach() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	// Each waits for the kernel's readers to be done: they wait together.
	errs := make([]error, len(k.links))
	var wg sync.WaitGroup
	for i, l := range k.links {
		wg.Go(func() { errs[i] = l.Close() })
	}
	wg.Wait()
	k.links = nil
	return errors.Join(errs...)
}

// Close detaches and unloads everything. Not while Read runs.
func (k *Kernel) Close() error {
	err := errors.Join(k.Detach(), k.ring.close())
	k.coll.Close()
	return err
}
