package report

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"math"
	"slices"
	"time"

	"github.com/postern-project/postern/internal/chart"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
)

//go:embed page.css
var style string

// clock writes a time of day.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// view is what the page shows.
type view struct {
	Report
	Policy      string
	Style       template.HTML
	Script      template.HTML
	First, Last time.Time
	Span        time.Duration
	Counts      counts
	Seen        uint64
	Losses      []event.Loss
	Lost        int64
	Groups      []groupView
	Calls       []callView // that are bars or described, in order of their beginning
	Hidden      int64      // calls that are not
	Times       template.HTML
	Procedures  []procedureView
	Open        []callView
	Slow        []slowView
	Failures    []*failed
	Notes       []note
	MoreNotes   int
	Flames      []flameView
}

// page writes what was gathered.
func (r Report) page(g *gatherer, sum event.Summary, w io.Writer) error {
	var d document
	v := r.view(g, sum)
	d.page(&v)
	_, err := d.WriteTo(w)
	return err
}

func (r Report) view(g *gatherer, sum event.Summary) view {
	sheet, script := chart.Style+style, chart.Script
	v := view{
		Report: r, Style: template.HTML(sheet), Script: template.HTML(script), First: g.first.wall, Last: g.last.wall,
		Span: g.span(), Counts: g.counts, Seen: sum.Seen, Losses: sum.Losses, Failures: g.failures.sorted(),
		Notes: g.notes.list, MoreNotes: g.notes.more,
		Policy: "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-" + hash(sheet) +
			"'; script-src 'sha256-" + hash(script) + "'",
	}
	for _, l := range sum.Losses {
		v.Lost += int64(l.Lost)
	}
	g.timelines(&v)
	g.latencies(&v)
	g.flames(&v)
	return v
}

// hash returns the SHA-256 of a text as content security policies name it.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// span returns how long the recording is, at least a nanosecond.
func (g *gatherer) span() time.Duration {
	return time.Duration(min(max(g.last.mono-g.first.mono, 1), math.MaxInt64))
}

// since returns when something was, from the beginning of the recording.
func (g *gatherer) since(mono uint64) time.Duration {
	return time.Duration(mono - min(g.first.mono, mono))
}

// groupView is a picture of lanes, and the table of them.
type groupView struct {
	ID, Title, Note string
	Picture         template.HTML
	Lanes           []laneView
	Drawn           int // of the lanes
}

type laneView struct {
	Name                string
	Calls, Failed, Open int64
	Took, Longest       time.Duration
}

// callView is a row of the table of calls.
type callView struct {
	*call
	Number            int
	Name, Daemon      string
	Began             time.Duration
	At                time.Time
	Took              time.Duration
	State             string // "", "failed", "open"
	Client, Machine   string
	Arguments, Answer string
}

const (
	maxDrawn = 24   // lanes of a group that are drawn
	maxBars  = 2000 // calls that are bars
)

// timelines draws the lanes, and lists the calls that are bars in them.
func (g *gatherer) timelines(v *view) {
	groups := []groupView{
		{
			ID: "daemons", Title: "By daemon",
			Note: "The daemons' own view: a call runs from when the daemon reads it to when it is answered.",
		},
		{ID: "clients", Title: "By client", Note: "Clients are called by who they are and what they run."},
		{
			ID: "machines", Title: "By virtual machine",
			Note: "Calls that are about a machine, and commands to its monitor that no call was the reason of.",
		},
	}
	names := [...]func(key string) string{g.daemonName, func(key string) string { return key }, g.known.Label}
	var lanes [3][]*lane
	for i, from := range []*group{&g.daemons, &g.clients, &g.machines} {
		lanes[i] = from.sorted()
	}
	shown := g.choose(lanes[:])
	v.Calls, v.Hidden = g.list(shown), g.counts.Calls+g.counts.Open-int64(len(shown))
	for i := range groups {
		if len(lanes[i]) == 0 {
			continue
		}
		t := chart.Timeline{Label: "calls over time, " + groups[i].Title, Span: g.span()}
		for n, l := range lanes[i] {
			groups[i].Lanes = append(groups[i].Lanes, l.row(names[i](l.key)))
			if n < maxDrawn {
				t.Lanes = append(t.Lanes, g.draw(l, names[i](l.key)))
			}
		}
		groups[i].Drawn, groups[i].Picture = len(t.Lanes), t.HTML()
		v.Groups = append(v.Groups, groups[i])
	}
	for _, c := range g.open {
		v.Open = append(v.Open, g.view(c))
	}
	for _, c := range g.slowest() {
		v.Slow = append(v.Slow, g.slowView(c))
	}
}

// choose numbers the calls that the page shows, in order of their beginning: the longest
// of each lane that is drawn, the slowest and the open.
func (g *gatherer) choose(groups [][]*lane) []*call {
	for _, lanes := range groups {
		for _, l := range lanes {
			slices.SortFunc(l.longest.calls, func(a, b *call) int { return cmp.Compare(b.took, a.took) })
		}
	}
	for limit := keptBars; ; limit = limit * 3 / 4 {
		set := map[*call]bool{}
		for _, c := range append(g.slowest(), g.open...) {
			set[c] = true
		}
		for _, lanes := range groups {
			for _, l := range lanes[:min(len(lanes), maxDrawn)] {
				for _, c := range l.longest.calls[:min(len(l.longest.calls), limit)] {
					set[c] = true
				}
			}
		}
		if len(set) > maxBars && limit > 10 {
			continue
		}
		shown := make([]*call, 0, len(set))
		for c := range set {
			shown = append(shown, c)
		}
		slices.SortFunc(shown, func(a, b *call) int {
			return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.took, a.took), cmp.Compare(a.client, b.client),
				cmp.Compare(a.arguments, b.arguments))
		})
		for i, c := range shown {
			c.number = i + 1
		}
		return shown
	}
}

func (g *gatherer) list(calls []*call) []callView {
	out := make([]callView, len(calls))
	for i, c := range calls {
		out[i] = g.view(c)
	}
	return out
}

func (g *gatherer) view(c *call) callView {
	began := g.since(c.from)
	return callView{
		call: c, Number: c.number, Name: g.procedures[c.procedure].name, Daemon: g.daemonName(c.daemon), Began: began,
		At: g.first.wall.Add(began), Took: c.took, State: c.state(), Client: c.client,
		Machine:   g.known.Label(c.machine),
		Arguments: c.arguments, Answer: c.answer,
	}
}

// state returns what became of a call; "" for an answer as it should be.
func (c *call) state() string {
	switch {
	case c.dropped:
		return "unanswered"
	case c.open:
		return "open"
	case c.failed:
		return "failed"
	}
	return ""
}

// daemonName returns the name of the lane of a daemon.
func (g *gatherer) daemonName(lane string) string {
	for pid, name := range g.names {
		if key(pid) == lane {
			return name + "[" + lane + "]"
		}
	}
	return lane
}

func (l *lane) row(name string) laneView {
	v := laneView{Name: name, Calls: l.calls - l.open, Failed: l.failed, Open: l.open, Took: l.took}
	if len(l.longest.calls) > 0 {
		v.Longest = l.longest.calls[0].took
	}
	return v
}

// draw makes a lane of a picture, of that name.
func (g *gatherer) draw(l *lane, name string) chart.Lane {
	out := chart.Lane{Name: name, Note: l.note()}
	for _, c := range l.longest.calls {
		if c.number > 0 {
			out.Bars = append(out.Bars, g.bar(c))
		}
	}
	for _, c := range l.said {
		out.Bars = append(out.Bars, g.part(c, g.last.mono))
	}
	out.Load, out.Failed = l.load.until(uint64(g.span()))
	out.Part = time.Duration(l.load.width)
	return out
}

// note says in a few words what happened to it.
func (l *lane) note() string {
	s := terminal.Counted(l.calls-l.open, "call")
	if l.failed > 0 {
		s += ", " + terminal.Counted(l.failed, "failure")
	}
	if l.open > 0 {
		s += ", " + terminal.Counted(l.open, "call") + " without an answer"
	}
	if len(l.said) > 0 {
		s += ", " + terminal.Counted(len(l.said), "command") + " for no call"
	}
	return s
}

// bar makes the bar of a call. One that still runs goes on until the end.
func (g *gatherer) bar(c *call) chart.Bar {
	b := chart.Bar{From: g.since(c.from), Took: c.took, Class: c.state(), Link: "#call-" + key(c.number)}
	if c.dropped {
		b.Class = "failed"
	}
	b.Title = g.procedures[c.procedure].name + ", " + c.client + ": " + cmp.Or(c.state(), "ok") + ", " +
		format.Duration(c.took)
	if c.open && !c.dropped {
		b.Took = g.span() - b.From
	}
	for i := range c.commands {
		b.Parts = append(b.Parts, g.part(&c.commands[i], c.from+uint64(c.took)))
	}
	return b
}

// part makes the bar of a monitor command. One without an answer goes on until end.
func (g *gatherer) part(c *command, end uint64) chart.Bar {
	b := chart.Bar{From: g.since(c.from), Took: c.took, Class: "part"}
	switch {
	case c.took == 0:
		b.Class, b.Took = "part open", time.Duration(end-min(c.from, end))
		b.Title = "QEMU: " + c.name + ", no answer"
		return b
	case c.failed:
		b.Class = "part failed"
	}
	b.Title = "QEMU: " + c.name + ", " + format.Duration(c.took)
	return b
}
