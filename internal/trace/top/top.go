// Package top shows which calls take libvirt's time, in a table that stays in place on
// a terminal.
package top

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/live"
)

// Config says what is shown.
type Config struct {
	By, Order string        // one of format.By, one of format.Orders
	Interval  time.Duration // between two tables, at least 100 ms
	Count     int           // end after so many; 0 means never
	JSON      bool          // a Table a line
	Histogram bool          // bars of how many calls took how long, instead of columns
}

// Validate returns an Invalid error for what cannot be shown.
func (c Config) Validate() error {
	if !slices.Contains(format.Orders, c.Order) {
		return postern.Errorf(postern.Invalid, "the order %s is none of %s", c.Order,
			strings.Join(format.Orders, ", "))
	}
	if c.Interval < 100*time.Millisecond || c.Count < 0 {
		return postern.Errorf(postern.Invalid, "an interval lasts at least 100ms, and their number is not negative")
	}
	return nil
}

// New returns a table of what is counted from now on.
func New(c Config, tally *format.Tally) *Model {
	return &Model{Config: c, tally: tally, began: time.Now()}
}

// Show shows the table until ctx ends, the reader ends it, or all intervals are over.
// On a terminal the table stays in place. When ctx ends, it waits for ended to be
// closed: then all is counted.
func (m *Model) Show(ctx context.Context, in io.Reader, out io.Writer, ended <-chan struct{}) error {
	if !terminal.IsTerminal(out) || m.JSON {
		return m.print(ctx, out, ended)
	}
	return live.Page{
		Interval: m.Interval, Count: m.Count, Later: true,
		Refresh: func(int) func() { return func() { m.refresh(time.Now()) } },
		Draw:    m.draw, Key: m.key,
	}.Show(ctx, in, out)
}

// Model is the table.
type Model struct {
	Config
	tally  *format.Tally
	began  time.Time
	read   time.Time // when rows were read last
	passed time.Duration
	rows   []format.Row
	open   []event.Event // calls without an answer, the oldest first
	// machines are those that open calls were about.
	machines format.Machines
	dec      libvirt.Decoder
	// snapshot says what is open now; nil for nothing.
	snapshot func() correlate.Snapshot
	shown    int // intervals
	width    int
}

// refresh reads the rows of the interval that ends now.
func (m *Model) refresh(now time.Time) {
	if m.read.IsZero() {
		m.read = m.began
	}
	m.passed, m.read = now.Sub(m.read), now
	m.rows = m.tally.Rows(m.Order)
	m.open = nil
	if m.snapshot != nil {
		m.open = m.snapshot().Calls
	}
	m.shown++
}

func (m *Model) done() bool { return m.Count > 0 && m.shown >= m.Count }

// key takes a key of the page.
func (m *Model) key(key string) {
	if key == "o" {
		m.Order = format.Orders[(slices.Index(format.Orders, m.Order)+1)%len(format.Orders)]
		format.Order(m.rows, m.Order)
	}
}

// draw returns the table for a terminal of so many columns.
func (m *Model) draw(width int, paused bool) string {
	m.width = width
	var b strings.Builder
	state := ""
	if paused {
		state = ", paused"
	}
	fmt.Fprintf(&b, "calls by %s, ordered by %s%s, since %s; o: order, space: pause, q: end\n", m.By, m.Order, state,
		m.began.Format(time.TimeOnly))
	m.table(&b)
	lines := strings.Split(b.String(), "\n")
	for i, line := range lines {
		if r := []rune(line); width > 0 && len(r) > width {
			lines[i] = string(r[:width])
		}
	}
	return strings.Join(lines, "\n")
}

// table writes the rows.
func (m *Model) table(w io.Writer) {
	if m.Histogram {
		m.histogram(w)
		return
	}
	var all time.Duration
	for _, r := range m.rows {
		all += r.Took
	}
	fmt.Fprintf(w, "%8s %9s %7s %8s %8s %8s %6s %6s  %s\n", "CALLS/S", "CALLS", "ERRORS", "P50", "P99", "MAX", "TIME",
		"QUEUE", strings.ToUpper(m.By))
	for _, r := range m.rows {
		fmt.Fprintf(w, "%8.1f %9d %7d %8s %8s %8s %5.1f%% %5.1f%%  %s\n", r.Rate(m.passed), r.Calls, r.Errors,
			format.Duration(r.Quantile(0.5)), format.Duration(r.Quantile(0.99)), format.Duration(r.Max),
			percent(r.Took, all), percent(r.Queued, r.Took), r.Name)
	}
	m.lost(w)
}

func (m *Model) lost(w io.Writer) {
	m.writeOpen(w)
	if lost := m.tally.Lost(); lost > 0 {
		fmt.Fprintf(w, "lost: %d events; a larger buffer holds more\n", lost)
	}
}

func percent(part, whole time.Duration) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// Table is what an interval showed, as JSON.
type Table struct {
	Time time.Time `json:"time"`
	By   string    `json:"by"`
	Lost int64     `json:"lost"` // events that could not be read
	Rows []Row     `json:"rows"`
}

// Row is a row of a Table. Times are in microseconds.
type Row struct {
	Name   string  `json:"name"`
	Calls  int64   `json:"calls"`
	Rate   float64 `json:"calls_per_second"`
	Errors int64   `json:"errors"`
	P50    int64   `json:"p50_us"`
	P99    int64   `json:"p99_us"`
	Max    int64   `json:"max_us"`
	Took   int64   `json:"total_us"`
	Queued int64   `json:"queued_us"`
}

func (m *Model) writeJSON(w io.Writer) error {
	rows := make([]Row, len(m.rows))
	for i, r := range m.rows {
		rows[i] = Row{
			Name: r.Name, Calls: r.Calls, Rate: r.Rate(m.passed), Errors: r.Errors,
			P50: r.Quantile(0.5).Microseconds(), P99: r.Quantile(0.99).Microseconds(),
			Max: r.Max.Microseconds(), Took: r.Took.Microseconds(), Queued: r.Queued.Microseconds(),
		}
	}
	return terminal.JSON(w, Table{m.read.UTC(), m.By, m.tally.Lost(), rows})
}

// print writes a table each interval until ctx ends, and one when all has been
// counted.
func (m *Model) print(ctx context.Context, w io.Writer, ended <-chan struct{}) error {
	tick := time.NewTicker(m.Interval)
	defer tick.Stop()
	for !m.done() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
			<-ended
		case <-tick.C:
		}
		m.refresh(time.Now())
		if m.JSON {
			if err := m.writeJSON(w); err != nil {
				return err
			}
			continue
		}
		if m.shown > 1 {
			fmt.Fprintln(w)
		}
		m.table(w)
	}
	return nil
}
