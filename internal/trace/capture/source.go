//go:build linux

package capture

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/postern-project/postern/internal/trace/bpf"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"golang.org/x/sys/unix"
)

// source turns the kernel's records into events.
type source struct {
	kernel *bpf.Kernel
	clock  clock
	sites  []siteState
	names  map[uint32]name      // by thread
	stacks map[uint32]stackCopy // by thread: waits for its event
	lost   uint32               // what the last record said
	counts map[bpf.Loss]uint64  // losses already reported, keyed with Lost 0
	record bpf.Record
	ev     event.Event
	args   [16]uint64
	texts  [16]string
	warned bool
	out    []event.Event // notices that go before the next event
}

// name is a thread's name and the effective user of its process.
type name struct {
	comm string
	uid  int
}

type stackCopy struct {
	regs, stack []byte
	ret         event.Return
}

// siteState is what the reader knows of a site.
type siteState struct {
	bpf.Site
	probe  string
	hits   int // messages found
	misses int // in a row
	search bool
	gaveUp bool // the search
}

// Misses in a row after which a site is searched, and after which the search
// ends.
const (
	missesToSearch = 8
	missesToGiveUp = 256
)

// maxNames bounds how many threads' names are remembered.
const maxNames = 1 << 14

func newSource(k *bpf.Kernel) *source {
	return &source{
		kernel: k, names: map[uint32]name{}, stacks: map[uint32]stackCopy{}, counts: map[bpf.Loss]uint64{},
	}
}

// next returns the next event, which stands until next is called again; nil when
// there is none.
func (s *source) next() *event.Event {
	for {
		if len(s.out) > 0 {
			s.ev = s.out[0]
			s.out = s.out[1:]
			return &s.ev
		}
		if !s.kernel.Read(&s.record) {
			return nil
		}
		if s.record.What == bpf.IsThread {
			s.nameThread()
			continue
		}
		st := s.site(uint32(s.record.Site))
		if st == nil {
			continue
		}
		if s.record.What == bpf.IsRegs {
			s.keepStack()
			continue
		}
		s.fill(st)
		if s.record.Lost != s.lost {
			s.lost = s.record.Lost
			if s.reportLosses(); len(s.out) > 0 {
				s.out = append(s.out, s.ownEvent())
				continue
			}
		}
		return &s.ev
	}
}

// ownEvent returns the event under construction with slices of its own.
func (s *source) ownEvent() event.Event {
	e := s.ev
	e.Args = append([]uint64(nil), e.Args...)
	e.Strings = append([]string(nil), e.Strings...)
	e.Payload = bytes.Clone(e.Payload)
	return e
}

func (s *source) site(id uint32) *siteState {
	for int(id) >= len(s.sites) {
		site, ok := s.kernel.Site(uint32(len(s.sites)))
		if !ok {
			return nil
		}
		s.sites = append(s.sites, siteState{
			Site: site, probe: site.Provider + ":" + site.Name,
			search: site.Searched(),
		})
	}
	return &s.sites[id]
}

func (s *source) keepStack() {
	n := bpf.RegsSize()
	if len(s.record.Data) < n {
		return
	}
	data := bytes.Clone(s.record.Data)
	if len(s.stacks) > 4096 {
		clear(s.stacks)
	}
	c := stackCopy{regs: data[:n:n], stack: data[n:]}
	c.ret.PC, c.ret.SP = s.record.Return()
	s.stacks[s.record.TID] = c
}

// fill makes the event of a record.
func (s *source) fill(st *siteState) {
	r, e := &s.record, &s.ev
	who := s.who(r.PID, r.TID)
	*e = event.Event{
		Kind: st.Kind, Probe: st.probe, Mono: r.Time, Wall: s.clock.wall(r.Time),
		PID: int(r.PID), TID: int(r.TID), CPU: int(r.CPU), UID: who.uid, Comm: who.comm,
	}
	if r.What == bpf.IsReturn {
		e.Kind = doneKind(st.Kind)
		return
	}
	n := min(len(st.Args), len(r.Args))
	copy(s.args[:], r.Args[:n])
	e.Args = s.args[:n]
	s.text(st)
	switch {
	case st.Kind.RPC() && n >= 8:
		s.message(st)
	case st.Kind == event.KeepaliveSend || st.Kind == event.KeepaliveRecv:
		e.Prog, e.Vers, e.Proc, e.Type = uint32(e.Arg(2)), uint32(e.Arg(3)), int32(e.Arg(4)), 2
		e.Client = e.Arg(1)
	case st.Kind >= event.KeepaliveNew && st.Kind <= event.KeepaliveTimeout:
		e.Client = e.Arg(1)
	case st.Kind == event.ClientNew || st.Kind == event.ClientFree || st.Kind.Server():
		e.Client = e.Arg(0)
	}
	if st.Kind == event.SocketNew {
		if p, ok := r.Peer(); ok {
			e.Peer = &event.Peer{PID: p.PID, UID: p.UID, Start: p.Start, Session: auditSession(p.Session)}
		}
	}
	if c, ok := s.stacks[r.TID]; ok {
		e.Regs, e.Stack, e.Return = c.regs, c.stack, c.ret
		delete(s.stacks, r.TID)
	}
}

func doneKind(k event.Kind) event.Kind {
	if k == event.TimeoutDispatch {
		return event.TimeoutDone
	}
	return event.HandleDone
}

// text sets the string arguments.
func (s *source) text(st *siteState) {
	r, e := &s.record, &s.ev
	switch st.Capture {
	case bpf.Strings:
		e.Strings = s.texts[:len(e.Args)]
		clear(e.Strings)
		for i, arg := range st.Texts {
			var cut bool
			if e.Strings[arg], cut = r.Text(i); cut {
				e.Cut = true
			}
		}
	case bpf.Text, bpf.Buffer:
		e.Strings = s.texts[:len(e.Args)]
		clear(e.Strings)
		data := r.Data
		if st.Capture == bpf.Text {
			var whole bool
			data, _, whole = bytes.Cut(data, []byte{0})
			// A string that fills its slot was cut at the slot's end.
			e.Cut = !whole && len(r.Data) > 0 || fillsSlot(len(r.Data))
		} else {
			e.Cut = uint64(len(data)) < e.Arg(st.Texts[1])
		}
		e.Strings[st.Texts[0]] = string(data)
	}
}

// fillsSlot reports whether a text of n bytes, its end included, filled the slot that the
// kernel had set aside for the longest texts.
func fillsSlot(n int) bool { return n == 16<<10 || n == 64<<10 }

// message sets the header and, if the copied bytes begin with that very header,
// the payload.
func (s *source) message(st *siteState) {
	r, e := &s.record, &s.ev
	e.Client, e.Len = e.Arg(0), int(uint32(e.Arg(1)))
	e.Prog, e.Vers, e.Proc = uint32(e.Arg(2)), uint32(e.Arg(3)), int32(e.Arg(4))
	e.Type, e.Status, e.Serial = uint32(e.Arg(5)), uint32(e.Arg(6)), uint32(e.Arg(7))
	e.PayloadLen, e.Began = max(e.Len-libvirt.HeaderLen, 0), r.Since
	if st.Capture != bpf.Message {
		e.NoPayload = true
		return
	}
	if h, ok := libvirt.ParseHeader(r.Data); !ok || h != libvirt.HeaderOf(e) {
		e.NoPayload = true
		s.missed(st)
		return
	}
	st.hits++
	st.misses = 0
	e.Payload = r.Data[libvirt.HeaderLen:]
	e.Cut = len(e.Payload) < e.PayloadLen
}

// missed counts a message that was not where it was expected: this build's
// structures differ. After some the kernel searches. If that fails too, only headers
// are shown, after one warning.
func (s *source) missed(st *siteState) {
	st.misses++
	id := uint32(s.record.Site)
	switch {
	case st.gaveUp:
	case !st.search && st.misses >= missesToSearch:
		st.search, st.misses = true, 0
		if err := s.kernel.Search(id, false); err != nil {
			s.warn(err.Error())
		}
	case st.search && st.misses >= missesToGiveUp:
		st.gaveUp = true
		s.differs(fmt.Sprintf("the messages at %s (%s) are not where this build's probe says: its structures "+
			"differ, so only headers are shown there", st.probe, st.Spec))
		if err := s.kernel.Search(id, true); err != nil {
			s.warn(err.Error())
		}
	}
}

// differs warns once: what holds for one probe of a build holds for its others.
func (s *source) differs(text string) {
	if !s.warned {
		s.warned = true
		s.warn(text)
	}
}

func (s *source) warn(text string) {
	now := monotonic()
	s.out = append(s.out, event.Event{
		Kind: event.Warning, Mono: now, Wall: s.clock.wall(now),
		Strings: []string{text},
	})
}

// reportLosses queues a notice for every process and probe that lost more than was
// reported before.
func (s *source) reportLosses() {
	losses, err := s.kernel.Losses()
	if err != nil {
		s.warn(err.Error())
		return
	}
	for _, l := range losses {
		key := bpf.Loss{PID: l.PID, Site: l.Site}
		more := l.Lost - s.counts[key]
		if more == 0 {
			continue
		}
		s.counts[key] = l.Lost
		e := event.Event{
			Kind: event.Lost, PID: l.PID, Mono: s.ev.Mono, Wall: s.ev.Wall, Args: []uint64{more},
			Comm: s.process(l.PID),
		}
		if st := s.site(l.Site); st != nil && l.PID != 0 {
			e.Probe = st.probe
		}
		s.out = append(s.out, e)
	}
}

// nameThread notes a thread's name and user, which the BPF program sends before the
// thread's first event in a second.
func (s *source) nameThread() {
	comm, uid := s.record.Thread()
	n, ok := s.names[s.record.TID]
	if ok && n.comm == comm && n.uid == uid {
		return
	}
	if len(s.names) >= maxNames {
		clear(s.names)
	}
	s.names[s.record.TID] = name{comm, uid}
}

// who returns a thread's name and user. Where its record was forgotten, they are read
// from /proc.
func (s *source) who(pid, tid uint32) name {
	n, ok := s.names[tid]
	if !ok {
		n = name{comm: threadName(int(pid), int(tid)), uid: -1}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d", pid), &st) == nil {
			n.uid = int(st.Uid)
		}
		s.names[tid] = n
	}
	return n
}

// process returns the name of a process, also of one that was seen and is gone.
func (s *source) process(pid int) string {
	if n := s.names[uint32(pid)]; n.comm != "" {
		return n.comm
	}
	return processName(pid)
}

func processName(pid int) string { return threadName(pid, pid) }

func threadName(pid, tid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/comm", pid, tid))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// clock turns the kernel's monotonic time into wall-clock time. The zero clock
// works.
type clock struct {
	base time.Time
	mono uint64
}

// wall returns the wall-clock time of a monotonic one. Every few seconds it
// looks anew, so that a clock that is set is followed.
func (c *clock) wall(mono uint64) time.Time {
	if c.mono == 0 || mono > c.mono+uint64(5*time.Second) {
		before := monotonic()
		c.base = time.Now().Round(0)
		c.mono = before + (monotonic()-before)/2
	}
	return c.base.Add(time.Duration(int64(mono - c.mono)))
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}
