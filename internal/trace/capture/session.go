//go:build linux

package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/bpf"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/usdt"
	"golang.org/x/sys/unix"
)

// checkKernel reports what the kernel part does not take.
func (c Config) checkKernel() error { return c.kernel().Validate() }

// stackBuffer holds 3,000 stacks: a call that asks for much makes hundreds of
// events between two looks at the buffer.
const stackBuffer = 64 << 20

// kernel returns the configuration of the kernel's filter. It leaves out what would
// break the matching of calls and replies: a filter on status never drops a call.
func (c Config) kernel() bpf.Config {
	k := bpf.Config{Buffer: c.Buffer, Payload: c.Payload, PIDs: c.Filter.PIDs, OneByOne: c.oneByOne}
	if c.Stack && c.Buffer == 0 {
		k.Buffer = stackBuffer
	}
	if c.What&Monitor != 0 {
		return k // a monitor command belongs to the next reply of its thread: all must be seen
	}
	if f := c.Filter; f.Procedures != nil {
		k.Procedures = make([]event.Procedure, 0, len(f.Procedures))
		for p := range f.Procedures {
			k.Procedures = append(k.Procedures, p)
		}
		k.Procedures = append(k.Procedures, libvirt.Open, libvirt.SetIdentity) // they name the client of a proxy
		if f.Unknown {
			k.Known = libvirt.Known()
		}
	}
	if k.Types = c.Filter.Types; k.Types&replies != 0 {
		k.Types |= calls
	}
	if k.Statuses = c.Filter.Statuses; k.Statuses == 0 && c.Filter.Errors {
		k.Statuses = 1 << uint(libvirt.Failed)
	}
	return k
}

// Bits of the types of calls and replies, those with file descriptors included.
const (
	calls   = 1<<0 | 1<<4
	replies = 1<<1 | 1<<5
)

// Session is a running trace.
type Session struct {
	cfg      Config
	kernel   *bpf.Kernel
	finder   *finder
	source   *source
	peers    *peers
	pipeline *correlate.Pipeline
	sockAt   atomic.Int64 // see peers.sockAt
	seen     uint64
	swept    time.Time
	dead     map[int]bool // processes that had ended then
	drained  uint64       // when what was in the ring began to be read: all up to then is known
	problems problems
	ended    mailbox[int] // processes that have ended
	asked    mailbox[chan correlate.Snapshot]
	open     int           // calls, at the end
	oldest   time.Duration // the age of the oldest of them
}

// mailbox holds what other goroutines have found, for the reader to report.
type mailbox[T any] struct {
	mu   sync.Mutex
	list []T
}

func (m *mailbox[T]) add(v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, v)
}

func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.list
	m.list = nil
	return list
}

// problems are errors while attaching, each reported once.
type problems struct {
	mailbox[error]
	reported sync.Map // texts
}

func (p *problems) add(err error) {
	if _, reported := p.reported.LoadOrStore(err.Error(), true); !reported {
		p.mailbox.add(err)
	}
}

// Start attaches to everything that is there. What comes later is attached while
// [Session.Run] runs.
func Start(c Config) (*Session, error) {
	if c.What == 0 {
		c.What = RPC
	}
	if err := c.Validate(); err != nil {
		return nil, postern.Errorf(postern.Invalid, "%w", err)
	}
	if err := bpf.Preflight(); err != nil {
		return nil, err
	}
	k, err := bpf.Load(c.kernel())
	if err != nil {
		return nil, bpf.Explain(err)
	}
	s := &Session{
		cfg: c, kernel: k, source: newSource(k), peers: newPeers(),
		pipeline: correlate.New(c.Filter, c.Tree),
	}
	s.sockAt.Store(-1)
	s.finder = newFinder(c.Filter.PIDs, c.Paths, s.attach)
	s.finder.gone = s.ended.add
	s.finder.Scan(time.Now())
	if err := s.ready(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return s, nil
}

// ready checks that what was asked for is there.
func (s *Session) ready() error {
	libs := s.finder.Libraries()
	attached := slices.ContainsFunc(libs, func(l *Library) bool { return l.Err == nil })
	for _, err := range s.problems.take() {
		return bpf.Explain(err)
	}
	if attached {
		return nil
	}
	return noProbes(s.cfg, libs)
}

// attach attaches a file's probes.
func (s *Session) attach(l *Library, f *os.File) {
	var places []bpf.Place
	for _, p := range l.Probes {
		site := bpf.NewSite(p)
		withHandle(&site)
		site.Stack = s.cfg.Stack
		site.Answer = s.cfg.Queue && site.Kind == event.ServerTx
		if s.cfg.What.has(site.Kind) {
			places = append(places, bpf.Place{Site: site, Offset: p.Offset, Semaphore: p.Semaphore})
		}
	}
	if len(places) == 0 {
		return
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err := s.kernel.Attach(path, 0, places)
	if err == nil {
		err = s.extras(l, f, path)
	}
	if err != nil {
		s.problems.add(fmt.Errorf("attach to %s: %w", l.Path, err))
	}
}

// worker is the function that a daemon's thread enters when it takes up a call.
const worker = "virNetServerProgramDispatch"

// extras attaches probes where libvirt has none: when a worker begins a call, and when
// a dispatch ends.
func (s *Session) extras(l *Library, f *os.File, path string) error {
	file, err := usdt.Open(f)
	if err != nil {
		return err
	}
	if s.cfg.What&RPC != 0 && s.cfg.Queue {
		if sym, ok := file.Symbol(worker); ok {
			if at, ok := file.Offset(sym.Value); ok {
				if err := s.kernel.AttachBegin(path, 0, at); err != nil {
					return err
				}
			}
		}
	}
	for _, p := range l.Probes {
		site := bpf.NewSite(p)
		switch site.Kind {
		case event.ServerNew:
			if at, ok := sockAt(p); ok {
				s.sockAt.Store(at)
			}
		case event.HandleDispatch, event.TimeoutDispatch:
			if s.cfg.What&Loop == 0 {
				continue
			}
			start, ok := file.Function(p.Addr)
			if !ok {
				continue
			}
			at, ok := file.Offset(start)
			if !ok {
				continue
			}
			if s.cfg.Stack {
				if err := s.kernel.AttachEnter(path, 0, at); err != nil {
					return err
				}
			}
			site.Capture, site.Texts = bpf.Header, nil
			if err := s.kernel.AttachReturn(path, 0, at, site); err != nil {
				return err
			}
		}
	}
	return nil
}

// Intervals of the reader and the finder. While events come, the reader looks
// seldom enough that it takes many at once, and often enough for a person who watches.
const (
	pollBusy = 50 * time.Millisecond
	pollIdle = 100 * time.Millisecond
	scanning = 500 * time.Millisecond
)

// Run hands events to sink until ctx ends, then detaches, hands over what is
// left and returns. An error of the sink ends it.
func (s *Session) Run(ctx context.Context, sink event.Sink) error {
	scans, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.rescan(scans) })
	err := s.read(ctx, sink)
	stop()
	wg.Wait()
	if derr := s.kernel.Detach(); err == nil {
		err = derr
	}
	if err != nil {
		return err
	}
	return s.drain(sink)
}

func (s *Session) rescan(ctx context.Context) {
	t := time.NewTicker(scanning)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			s.finder.Scan(now)
		}
	}
}

func (s *Session) read(ctx context.Context, sink event.Sink) error {
	for {
		s.drained = monotonic()
		n, err := s.deliverAll(ctx, sink)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if err := s.idle(sink); err != nil {
			return err
		}
		poll := pollIdle
		if n > 0 {
			poll = pollBusy
		}
		if err := s.kernel.Wait(time.Now().Add(poll)); err != nil {
			return err
		}
	}
}

// yieldEvery is after how many events, some 20 microseconds of work, the reader
// yields its processor.
const yieldEvery = 32

// deliverAll hands over what is in the ring, until ctx ends, and returns how many
// events.
func (s *Session) deliverAll(ctx context.Context, sink event.Sink) (int, error) {
	for n := 1; ; n++ {
		if n%yieldEvery == 0 {
			s.kernel.Yield()
			if ctx.Err() != nil {
				return n, nil
			}
		}
		e := s.source.next()
		if e == nil {
			return n - 1, nil
		}
		if err := s.deliver(e, sink); err != nil {
			return n, err
		}
	}
}

// drain hands over what was in the ring when the probes were detached.
func (s *Session) drain(sink event.Sink) error {
	s.drained = monotonic()
	if _, err := s.deliverAll(context.Background(), sink); err != nil {
		return err
	}
	s.open, s.oldest = s.pipeline.Open(s.drained)
	if err := s.pipeline.End(s.drained, sink); err != nil {
		return err
	}
	return s.idle(sink)
}

func (s *Session) idle(sink event.Sink) error {
	for _, err := range s.problems.take() {
		s.source.warn(bpf.Explain(err).Error())
	}
	if uint32(s.kernel.Lost()) != s.source.lost {
		s.source.lost = uint32(s.kernel.Lost())
		s.source.reportLosses()
	}
	for len(s.source.out) > 0 {
		e := s.source.out[0]
		s.source.out = s.source.out[1:]
		if err := s.deliver(&e, sink); err != nil {
			return err
		}
	}
	now := monotonic()
	for _, text := range s.pipeline.Stalled(now) {
		e := event.Event{Kind: event.Warning, Mono: now, Wall: s.source.clock.wall(now), Strings: []string{text}}
		if err := sink.Event(&e); err != nil {
			return err
		}
	}
	for _, pid := range s.ended.take() {
		if err := s.reportGone(pid, now, sink); err != nil {
			return err
		}
	}
	s.sweep(time.Now())
	s.answer()
	if err := s.pipeline.Idle(s.drained, sink); err != nil {
		return err
	}
	return sink.Idle()
}

// reportGone reports that a daemon has ended. The end of other processes is not
// reported.
func (s *Session) reportGone(pid int, now uint64, sink event.Sink) error {
	if !s.pipeline.Serves(pid) {
		return nil
	}
	return s.deliver(&event.Event{
		Kind: event.Gone, Mono: now, Wall: s.source.clock.wall(now), PID: pid, TID: pid, UID: -1,
		Comm: s.source.process(pid),
	}, sink)
}

// sweep forgets processes that have ended, every ten seconds: those that had at the last
// time, so that the end of a daemon was reported.
func (s *Session) sweep(now time.Time) {
	if now.Sub(s.swept) < 10*time.Second {
		return
	}
	s.swept = now
	alive := map[int]bool{}
	dead := map[int]bool{}
	gone := func(pid int) bool {
		a, ok := alive[pid]
		if !ok {
			a = unix.Kill(pid, 0) != unix.ESRCH
			alive[pid], dead[pid] = a, !a
		}
		return !a && s.dead[pid]
	}
	s.peers.forget(gone)
	s.pipeline.Forget(gone)
	s.dead = dead
}

func (s *Session) deliver(e *event.Event, sink event.Sink) error {
	if e.Kind < event.Gone {
		s.seen++
	}
	if s.cfg.Stacked != nil && len(e.Stack) > 0 {
		s.cfg.Stacked(e)
	}
	s.peers.sockAt = s.sockAt.Load()
	s.peers.see(e)
	s.pipeline.Identify(e)
	if s.cfg.Record != nil {
		if err := s.cfg.Record.Event(e); err != nil {
			return err
		}
	}
	return s.pipeline.Event(e, sink)
}

// Summary returns what was seen and lost so far. Not while Run runs.
func (s *Session) Summary() event.Summary {
	losses, _ := s.kernel.Losses() // what cannot be read is not known to be lost
	lost := map[event.Loss]uint64{}
	for _, l := range losses {
		site, _ := s.kernel.Site(l.Site)
		lost[event.Loss{PID: l.PID, Comm: s.source.process(l.PID), Probe: site.Provider + ":" + site.Name}] += l.Lost
	}
	sum := event.NewSummary(s.seen, lost)
	sum.Open, sum.Oldest = s.open, s.oldest
	return sum
}

// Libraries returns the files of libvirt's that were found.
func (s *Session) Libraries() []*Library { return s.finder.Libraries() }

// Close unloads everything.
func (s *Session) Close() error { return s.kernel.Close() }
