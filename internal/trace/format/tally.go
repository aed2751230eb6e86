package format

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// By is what a row of a [Tally] stands for.
type By string

// What rows can stand for, and what they can be ordered by.
const (
	ByProcedure By = "procedure"
	ByClient    By = "client"
	ByDomain    By = "domain"
)

// Tally counts calls as their replies are seen. It is a sink of a session, and
// safe for concurrent use.
type Tally struct {
	by       By
	mu       sync.Mutex
	rows     map[string]*Row
	lost     int64
	machines Machines
	dec      libvirt.Decoder
}

// Row sums up the calls of one procedure, client or domain.
type Row struct {
	Name     string
	Calls    int64
	Errors   int64
	Took     time.Duration // all calls together, in the daemon where that is watched
	Queued   time.Duration // of it, waiting for a worker
	Max      time.Duration
	Previous int64 // Calls when the rows were last read
	spread   [buckets]uint32
}

const (
	maxRows = 4096   // then calls go to the row "others"
	octave  = 8      // buckets for each doubling of the time: 9 % apart
	buckets = 32 * 8 // from 1 microsecond to more than an hour
	others  = "others"
)

// NewTally returns a tally without rows.
func NewTally(by By) (*Tally, error) {
	if by != ByProcedure && by != ByClient && by != ByDomain {
		return nil, postern.Errorf(postern.Invalid, "calls are not counted by %q",
			by).WithHint("procedure, client or domain")
	}
	return &Tally{by: by, rows: map[string]*Row{}}, nil
}

// Event counts a reply. The daemon's counts; a client's only where the daemon
// is not watched, being on another host.
func (t *Tally) Event(e *event.Event) error {
	if e.Kind == event.Lost {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.lost += int64(e.Arg(0))
		return nil
	}
	if !e.Completes() || e.Call.Forwarded { // counted at the daemon that does it
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	name := t.name(e)
	r := t.rows[name]
	if r == nil {
		if len(t.rows) >= maxRows {
			name = others
		}
		if r = t.rows[name]; r == nil {
			r = &Row{Name: name}
			t.rows[name] = r
		}
	}
	r.Calls++
	if libvirt.Status(e.Status) == libvirt.Failed {
		r.Errors++
	}
	r.Took += e.Took
	r.Queued += e.Call.Queue
	r.Max = max(r.Max, e.Took)
	r.spread[bucket(e.Took)]++
	return nil
}

// Idle does nothing.
func (*Tally) Idle() error { return nil }

func (t *Tally) name(e *event.Event) string {
	switch t.by {
	case ByClient:
		if p := e.Call.Peer; p != nil && e.Kind.Server() {
			return string(Who(nil, p))
		}
		return string(Short(nil, e.Comm, 16))
	case ByDomain:
		return cmp.Or(t.machines.Of(&t.dec, e), "-")
	}
	return libvirt.ProgramName(e.Prog) + "." + libvirt.ProcedureName(e.Prog, e.Proc)
}

// Who appends who the client is without what differs from one connection to
// the next: number of process and port.
func Who(dst []byte, p *event.Peer) []byte {
	host, _, _ := strings.Cut(p.Remote, ";")
	q := *p
	q.Remote, q.PID = host, 0
	if p.PID != 0 {
		q.Remote = ""
	}
	dst = Client(dst, &q)
	if p.PID != 0 {
		dst = Short(append(dst, ' '), Program(p.Command), 24)
	}
	return dst
}

func bucket(d time.Duration) int {
	us := float64(d) / float64(time.Microsecond)
	if us <= 1 {
		return 0
	}
	return min(int(math.Log2(us)*octave), buckets-1)
}

// Rate returns the calls a second of an interval of that length.
func (r *Row) Rate(interval time.Duration) float64 {
	if interval <= 0 {
		return 0
	}
	return float64(r.Calls-r.Previous) / interval.Seconds()
}

// Quantile returns how long the fastest of that share of the calls took at the
// most, within 9 %. The share is from 0 to 1.
func (r *Row) Quantile(share float64) time.Duration {
	left := int64(math.Ceil(share * float64(r.Calls)))
	for i, n := range r.spread {
		if left -= int64(n); left <= 0 {
			return min(r.Max, time.Duration(math.Exp2(float64(i+1)/octave)*float64(time.Microsecond)))
		}
	}
	return r.Max
}

// Histogram counts the calls that took from the given time on, in columns of which so
// many go to each power of ten.
func (r *Row) Histogram(from time.Duration, perDecade, columns int) []int64 {
	counts := make([]int64, columns)
	for i, n := range r.spread {
		middle := math.Exp2((float64(i)+0.5)/octave) * float64(time.Microsecond)
		at := int(math.Floor(math.Log10(middle/float64(from)) * float64(perDecade)))
		counts[min(max(at, 0), columns-1)] += int64(n)
	}
	return counts
}

// Orders are what rows can be ordered by, most first.
var Orders = []string{"time", "calls", "errors", "p99", "max", "name"}

// Lost returns how many hits of probes never reached the tally.
func (t *Tally) Lost() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// Rows returns copies of the rows in one of the [Orders], and begins a new
// interval.
func (t *Tally) Rows(order string) []Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows := make([]Row, 0, len(t.rows))
	for _, r := range t.rows {
		rows = append(rows, *r)
		if t.by == ByDomain {
			rows[len(rows)-1].Name = t.machines.Label(r.Name)
		}
		r.Previous = r.Calls
	}
	Order(rows, order)
	return rows
}

// Order sorts rows by one of the [Orders].
func Order(rows []Row, order string) {
	key := func(r *Row) int64 {
		switch order {
		case "calls":
			return r.Calls
		case "errors":
			return r.Errors
		case "p99":
			return int64(r.Quantile(0.99))
		case "max":
			return int64(r.Max)
		case "name":
			return 0
		}
		return int64(r.Took)
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(key(&b), key(&a)), strings.Compare(a.Name, b.Name))
	})
}
