package report

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// procedure sums up the calls of one procedure.
type procedure struct {
	name          string
	took          []time.Duration // of each call; sorted by finish
	failed, open  int64
	total, queued time.Duration
}

// finish sorts what was gathered.
func (p *procedure) finish() { slices.Sort(p.took) }

// percentile returns the least time within which that many of a hundred calls were
// answered: the nearest rank, of all times.
func percentile(sorted []time.Duration, percent float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	n := float64(len(sorted)) * percent / 100
	rank := int(n)
	if float64(rank) < n {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// busiest returns the procedures, those first that took the most time.
func (g *gatherer) busiest() []*procedure {
	all := slices.SortedFunc(maps.Values(g.procedures), func(a, b *procedure) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(b.open, a.open), cmp.Compare(a.name, b.name))
	})
	for _, p := range all {
		p.finish()
	}
	return all
}

// failure is what calls of a procedure failed with.
type failure struct{ Procedure, Code, Text string }

// failed is how often, and when.
type failed struct {
	failure
	Count       int64
	First, Last time.Time
	Client      string // the last one
}

// failures are what calls failed with. Once there are many, messages are not told apart.
type failures map[failure]*failed

const maxFailures = 500

// fail counts a call that failed.
func (g *gatherer) fail(e *event.Event) {
	f := failure{Procedure: g.procedure(event.Procedure{Prog: e.Prog, Proc: e.Proc}).name, Code: "unknown"}
	m := g.dec.Event(e)
	if info := m.Failure(); info != nil {
		f.Code = libvirt.ErrorName(info.Code)
		f.Text = string(format.Short(nil, string(m.AppendText(nil, libvirt.Style{})), 2*maxText))
	}
	if _, known := g.failures[f]; !known && len(g.failures) >= maxFailures {
		f.Text = "(other messages)"
	}
	n := g.failures[f]
	if n == nil {
		n = &failed{failure: f, First: e.Wall}
		g.failures[f] = n
	}
	n.Count++
	n.Last, n.Client = e.Wall, g.client(e)
}

// sorted returns the failures, the most frequent first.
func (f failures) sorted() []*failed {
	return slices.SortedFunc(maps.Values(f), func(a, b *failed) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Procedure, b.Procedure),
			cmp.Compare(a.Text, b.Text))
	})
}

// note is an event that tells what went wrong.
type note struct {
	At   time.Time
	Text string
}

// notes are the first of such events.
type notes struct {
	list   []note
	more   int // that are not listed
	buf    bytes.Buffer
	writer *format.Writer
}

const maxNotes = 200

// noted reports whether events of kind k are listed: clients that were refused, daemons
// that ended, what was lost.
func noted(k event.Kind) bool {
	switch k {
	case event.AuthDeny, event.AuthFail, event.TLSDeny, event.TLSFail, event.TLSHandshakeFail,
		event.KeepaliveTimeout, event.Gone, event.Warning, event.Lost:
		return true
	}
	return false
}

// add adds an event in the words of the text format.
func (n *notes) add(e *event.Event) error {
	if len(n.list) >= maxNotes {
		n.more++
		return nil
	}
	if n.writer == nil {
		var err error
		if n.writer, err = format.New(&n.buf, format.Config{Verbose: true}); err != nil {
			return err
		}
	}
	n.buf.Reset()
	if err := n.writer.Event(e); err != nil {
		return err
	}
	if err := n.writer.Idle(); err != nil {
		return err
	}
	_, text, _ := strings.Cut(strings.TrimSpace(n.buf.String()), " ") // behind the time
	n.list = append(n.list, note{e.Wall, text})
	return nil
}
