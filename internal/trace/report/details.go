package report

import (
	"cmp"
	"html/template"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/postern-project/postern/internal/chart"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
)

// slowest returns the slowest calls, the slowest first.
func (g *gatherer) slowest() []*call {
	calls := slices.Clone(g.slow.calls)
	slices.SortFunc(calls, func(a, b *call) int {
		return cmp.Or(cmp.Compare(b.took, a.took), cmp.Compare(a.from, b.from))
	})
	return calls
}

// slowView is what the page tells of one of the slowest calls.
type slowView struct {
	callView
	Queue, Service, Network time.Duration
	Arguments, Answer       string
	Picture                 template.HTML
	Commands                []commandView
	More                    int // commands that are not listed
	Made, Answered          []string
}

type commandView struct {
	Name, Text string
	After      time.Duration // since the call began
	Took       time.Duration
	State      string
}

func (g *gatherer) slowView(c *call) slowView {
	v := slowView{
		callView: g.view(c), Queue: c.queue, Service: c.service, Network: c.network, Arguments: c.detail.arguments,
		Answer: c.detail.answer, More: c.said - len(c.commands), Made: frames(c.detail.made),
		Answered: frames(c.detail.answered),
	}
	for i := range c.commands {
		v.Commands = append(v.Commands, viewCommand(c, &c.commands[i]))
	}
	if len(c.commands) > 0 {
		v.Picture = within(c)
	}
	return v
}

func viewCommand(c *call, q *command) commandView {
	v := commandView{
		Name: q.name, Text: q.text, After: time.Duration(q.from - min(c.from, q.from)), Took: q.took,
		State: "ok",
	}
	switch {
	case q.took == 0:
		v.State = "no answer"
	case q.failed:
		v.State = "failed"
	}
	return v
}

// within draws a call and what was said to QEMU for it.
func within(c *call) template.HTML {
	at := func(mono uint64) time.Duration { return time.Duration(mono - min(c.from, mono)) }
	bar := chart.Bar{Took: c.took, Class: c.state(), Title: "the call: " + format.Duration(c.took)}
	for i := range c.commands {
		q := &c.commands[i]
		p := chart.Bar{From: at(q.from), Took: q.took, Class: "part", Title: q.name + ": " + format.Duration(q.took)}
		if q.failed {
			p.Class = "part failed"
		}
		if q.took == 0 {
			p.Class, p.Took, p.Title = "part open", c.took-p.From, q.name+": no answer"
		}
		bar.Parts = append(bar.Parts, p)
	}
	t := chart.Timeline{Label: "the call and its commands to QEMU", Span: c.took, Lanes: []chart.Lane{{
		Name: "The call", Note: "below it, " + terminal.Counted(len(c.commands), "command") + " to QEMU",
		Bars: []chart.Bar{bar},
	}}}
	return t.HTML()
}

// frames writes a stack, the innermost frame first.
func frames(stack []event.Frame) []string {
	out := make([]string, len(stack))
	for i := range stack {
		f := &stack[i]
		name := string(format.Clean(nil, f.Symbol))
		switch {
		case name != "":
			name += "+0x" + strconv.FormatUint(f.Offset, 16)
		case f.Size > 0: // only its bounds are known
			name = "0x" + strconv.FormatUint(f.Start, 16) + "+0x" + strconv.FormatUint(f.Offset, 16)
		default:
			name = "0x" + strconv.FormatUint(f.PC, 16)
		}
		if f.Module != "" {
			name += " [" + path.Base(string(format.Clean(nil, f.Module))) + "]"
		}
		if f.File != "" {
			name += " " + string(format.Clean(nil, f.File)) + ":" + strconv.Itoa(f.Line)
		}
		out[i] = name
	}
	return out
}

// procedureView is a row of the table of procedures.
type procedureView struct {
	Name                            string
	Calls, Failed, Open             int64
	P50, P90, P99, P999, Max, Total time.Duration
	Share, Queue                    float64 // in percent
	Times                           template.HTML
}

// latencies draws how long calls took.
func (g *gatherer) latencies(v *view) {
	all := g.busiest()
	var took []time.Duration
	for _, p := range all {
		took = append(took, p.took...)
	}
	slices.Sort(took)
	if len(took) == 0 {
		return
	}
	var total time.Duration
	for _, p := range all {
		total += p.total
	}
	from, to := took[0], took[len(took)-1]
	times := chart.NewTimes("how many calls took how long", from, to)
	for _, m := range []struct {
		percent float64
		name    string
	}{{50, "half of the calls"}, {99, "99 of 100 calls"}} {
		times.Marks = append(times.Marks, chart.Mark{At: percentile(took, m.percent), Name: m.name})
	}
	for _, p := range all {
		own := chart.NewTimes("times of "+p.name, from, to)
		for _, d := range p.took {
			own.Add(d, 1)
		}
		for i, n := range own.Counts {
			times.Counts[i] += n
		}
		v.Procedures = append(v.Procedures, p.view(total, &own))
	}
	v.Times = times.HTML(140)
}

func (p *procedure) view(total time.Duration, times *chart.Times) procedureView {
	v := procedureView{
		Name: p.name, Calls: int64(len(p.took)), Failed: p.failed, Open: p.open, Total: p.total,
		P50: percentile(p.took, 50), P90: percentile(p.took, 90), P99: percentile(p.took, 99),
		P999: percentile(p.took, 99.9), Max: percentile(p.took, 100), Times: times.Small(24),
	}
	if total > 0 {
		v.Share = 100 * float64(p.total) / float64(total)
	}
	if p.total > 0 {
		v.Queue = 100 * float64(p.queued) / float64(p.total)
	}
	return v
}

// flameView is a flame graph and the functions in it.
type flameView struct {
	ID, Title, Note string
	Picture         template.HTML
	Functions       []functionView
}

type functionView struct {
	Name        string
	Self, Total string
	Share       float64 // of Total, in percent
}

const maxFunctions = 100

// flames draws the stacks of a recording that has some.
func (g *gatherer) flames(v *view) {
	if !g.stacked {
		return
	}
	var byCount, byTime chart.Flame
	byCount.Name, byTime.Name = "all", "all"
	g.stacks.Each(func(path []string, events int64, took time.Duration) {
		byCount.Add(path, events)
		byTime.Add(path, int64(took))
	})
	v.Flames = append(v.Flames, newFlame("events", "By number",
		"How many events each function and its callees caused.",
		&byCount, func(n int64) string { return terminal.Counted(n, "event") }))
	if byTime.Value > 0 {
		v.Flames = append(v.Flames, newFlame("time", "By time",
			"Time of calls, of the functions that made and answered them; of commands to QEMU; of dispatches.",
			&byTime, func(n int64) string { return format.Duration(time.Duration(n)) }))
	}
}

func newFlame(id, title, note string, f *chart.Flame, unit func(int64) string) flameView {
	v := flameView{ID: id, Title: title, Note: note, Picture: f.HTML("flame graph, "+title, unit)}
	for _, n := range functions(f) {
		v.Functions = append(v.Functions, functionView{
			Name: n.name, Self: unit(n.self), Total: unit(n.total),
			Share: 100 * float64(n.total) / float64(max(f.Value, 1)),
		})
	}
	return v
}

// function is what was seen in a function, and in it and its callees.
type function struct {
	name        string
	self, total int64
}

// functions returns the functions of a graph, those first in which the most was seen.
// What recursion calls counts once.
func functions(f *chart.Flame) []function {
	sums := map[string]*function{}
	var walk func(f *chart.Flame, within map[string]bool)
	walk = func(f *chart.Flame, within map[string]bool) {
		s := sums[f.Name]
		if s == nil {
			s = &function{name: f.Name}
			sums[f.Name] = s
		}
		s.self += f.Self()
		again := within[f.Name]
		if !again {
			s.total += f.Value
			within[f.Name] = true
		}
		for _, c := range f.Calls() {
			walk(c, within)
		}
		if !again {
			delete(within, f.Name)
		}
	}
	for _, c := range f.Calls() {
		walk(c, map[string]bool{})
	}
	out := make([]function, 0, len(sums))
	for _, s := range sums {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b function) int {
		return cmp.Or(cmp.Compare(b.self, a.self), cmp.Compare(b.total, a.total), cmp.Compare(a.name, b.name))
	})
	return out[:min(len(out), maxFunctions)]
}
