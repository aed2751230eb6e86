package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// topOptions are the flags of trace top.
type topOptions struct {
	traceOptions
	by, order string
	interval  time.Duration
	count     int
}

func newTraceTop(a *app) *cobra.Command {
	o := &topOptions{traceOptions: traceOptions{what: capture.RPC}}
	c := &cobra.Command{
		Use:   "top",
		Short: "Show which calls take libvirt's time",
		Long: `Count RPC calls by procedure, client or virtual machine: how many, how many
failed, how long they took (half of them, 99 of 100, the longest), their share of
all the time, and the share of theirs that was spent waiting for a worker. By
virtual machine, only calls that are about one count.

On a terminal the table stays in place: o orders it by the next column, space
holds it, q ends. Elsewhere a table is written each interval, or with --json one
line of JSON. Times are exact to 9 %.`,
		Example: `  postern trace top
  postern trace top --by client --order calls
  postern trace top --json --interval 10s --count 6`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a) },
	}
	o.choose(c)
	o.rpc(c)
	o.capture(c)
	f := c.Flags()
	f.StringVar(&o.by, "by", "procedure", "the `KIND` of a row: procedure, client, domain")
	f.StringVar(&o.order, "order", "time", "the `COLUMN` that comes first: "+strings.Join(format.Orders, ", "))
	f.DurationVar(&o.interval, "interval", time.Second, "the `DURATION` between two tables")
	f.IntVar(&o.count, "count", 0, "end after `N` intervals; 0 means never")
	f.BoolVar(&o.json, "json", false, "print JSON, one object an interval")
	return c
}

func (o *topOptions) run(ctx context.Context, a *app) error {
	tally, cfg, err := o.check()
	if err != nil {
		return err
	}
	o.warn(a.err)
	s, err := capture.Start(cfg)
	if err != nil {
		return err
	}
	ready(a.err, s)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var traced error
	ended := make(chan struct{})
	go func() {
		traced = s.Run(ctx, tally)
		close(ended)
		stop()
	}()
	m := &topModel{topOptions: o, tally: tally, began: time.Now()}
	err = m.show(ctx, a, ended)
	stop()
	<-ended
	summary(a.err, s.Summary())
	return errors.Join(err, traced, s.Close())
}

// check turns the flags into what is counted and watched.
func (o *topOptions) check() (*format.Tally, capture.Config, error) {
	if !slices.Contains(format.Orders, o.order) {
		return nil, capture.Config{}, postern.Errorf(postern.Invalid, "--order %s is none of %s", o.order, strings.Join(format.Orders, ", "))
	}
	if o.interval < 100*time.Millisecond || o.count < 0 {
		return nil, capture.Config{}, postern.Errorf(postern.Invalid, "--interval is at least 100ms, and --count not negative")
	}
	tally, err := format.NewTally(format.By(o.by))
	if err != nil {
		return nil, capture.Config{}, err
	}
	if o.by == string(format.ByDomain) && len(o.domains) == 0 {
		o.domains = []string{"*"} // look for them in the messages
	}
	cfg, err := o.config()
	cfg.Queue = true
	return tally, cfg, err
}

// show shows the table until ctx ends, the reader ends it, or all intervals are over.
func (m *topModel) show(ctx context.Context, a *app, ended <-chan struct{}) error {
	out, ok := a.out.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) || m.json {
		return m.print(ctx, a.out, ended)
	}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil // it was told to end
	}
	return err
}

// topModel is the table on a terminal.
type topModel struct {
	*topOptions
	tally  *format.Tally
	began  time.Time
	read   time.Time // when rows were read last
	passed time.Duration
	rows   []format.Row
	shown  int // intervals
	held   bool
	width  int
	height int
}

type topTick struct{}

func (m *topModel) tick() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return topTick{} })
}

// refresh reads the rows of the interval that ends now.
func (m *topModel) refresh(now time.Time) {
	if m.read.IsZero() {
		m.read = m.began
	}
	m.passed, m.read = now.Sub(m.read), now
	m.rows = m.tally.Rows(m.order)
	m.shown++
}

func (m *topModel) done() bool { return m.count > 0 && m.shown >= m.count }

// Init begins the first interval.
func (m *topModel) Init() tea.Cmd { return m.tick() }

// Update takes a key or the end of an interval.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTick:
		if !m.held {
			m.refresh(time.Now())
		}
		if m.done() {
			return m, tea.Quit
		}
		return m, m.tick()
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "space":
			m.held = !m.held
		case "o":
			m.order = format.Orders[(slices.Index(format.Orders, m.order)+1)%len(format.Orders)]
			format.Order(m.rows, m.order)
		}
	}
	return m, nil
}

// View draws the table, as much of it as there is room for.
func (m *topModel) View() tea.View {
	var b strings.Builder
	state := ""
	if m.held {
		state = ", held"
	}
	fmt.Fprintf(&b, "calls by %s, ordered by %s%s, since %s; o: order, space: hold, q: end\n", m.by, m.order, state, m.began.Format(time.TimeOnly))
	m.table(&b)
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if m.height > 0 && len(lines) > m.height {
		lines = lines[:m.height]
	}
	for i, line := range lines {
		if r := []rune(line); m.width > 0 && len(r) > m.width {
			lines[i] = string(r[:m.width])
		}
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

// table writes the rows.
func (m *topModel) table(w io.Writer) {
	var all time.Duration
	for _, r := range m.rows {
		all += r.Took
	}
	fmt.Fprintf(w, "%8s %9s %7s %8s %8s %8s %6s %6s  %s\n", "CALLS/S", "CALLS", "ERRORS", "P50", "P99", "MAX", "TIME", "QUEUE", strings.ToUpper(m.by))
	for _, r := range m.rows {
		fmt.Fprintf(w, "%8.1f %9d %7d %8s %8s %8s %5.1f%% %5.1f%%  %s\n", r.Rate(m.passed), r.Calls, r.Errors,
			format.Duration(r.Quantile(0.5)), format.Duration(r.Quantile(0.99)), format.Duration(r.Max), percent(r.Took, all), percent(r.Queued, r.Took), r.Name)
	}
	if lost := m.tally.Lost(); lost > 0 {
		fmt.Fprintf(w, "lost: %d events; a larger --buffer helps\n", lost)
	}
}

func percent(part, whole time.Duration) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// topJSON is a table as JSON.
type topJSON struct {
	Time time.Time `json:"time"`
	By   string    `json:"by"`
	Lost int64     `json:"lost"` // events that could not be read
	Rows []topRow  `json:"rows"`
}

// topRow is a row as JSON. Times are in microseconds.
type topRow struct {
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

func (m *topModel) writeJSON(w io.Writer) error {
	rows := make([]topRow, len(m.rows))
	for i, r := range m.rows {
		rows[i] = topRow{
			Name: r.Name, Calls: r.Calls, Rate: r.Rate(m.passed), Errors: r.Errors, P50: r.Quantile(0.5).Microseconds(), P99: r.Quantile(0.99).Microseconds(),
			Max: r.Max.Microseconds(), Took: r.Took.Microseconds(), Queued: r.Queued.Microseconds(),
		}
	}
	return terminal.JSON(w, topJSON{m.read.UTC(), m.by, m.tally.Lost(), rows})
}

// print writes a table each interval until ctx ends, and one when all has been
// counted.
func (m *topModel) print(ctx context.Context, w io.Writer, ended <-chan struct{}) error {
	tick := time.NewTicker(m.interval)
	defer tick.Stop()
	for !m.done() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
			<-ended
		case <-tick.C:
		}
		m.refresh(time.Now())
		if m.json {
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
