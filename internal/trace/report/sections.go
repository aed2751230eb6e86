package report

import (
	"strconv"
	"time"

	"github.com/postern-project/postern/internal/terminal"
)

// day writes a moment in UTC, as the page's heading has it.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func (d *document) page(v *view) {
	d.add(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="%s">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>libvirt trace: %s</title>
<style>%s</style>
</head>
<body>
`, v.Policy, v.Name, v.Style)
	d.header(v)
	d.add(`<main id="main" tabindex="-1">` + "\n")
	d.figures(v)
	d.open(v.Open)
	d.timeline(v)
	d.latency(v)
	d.slow(v.Slow)
	d.failures(v)
	d.stacks(v.Flames)
	d.lost(v)
	d.add("</main>\n<footer><p>Made by postern")
	d.maybe(" %s", v.Version)
	d.add(" trace report. Passwords and keys are masked.</p></footer>\n<script>%s</script>\n</body>\n</html>\n",
		v.Script)
}

func (d *document) header(v *view) {
	d.add(`<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>libvirt trace <span class="name">%s</span></h1>
<p class="meta">`, v.Name)
	if v.First.IsZero() {
		d.add("no event was recorded")
	} else {
		d.add("%s to %s UTC, %s", day(v.First), day(v.Last), v.Span)
	}
	d.add("</p>\n" + `<nav aria-label="Sections"><ul>` + "\n")
	for _, s := range []struct {
		shown    bool
		id, name string
	}{
		{len(v.Open) > 0, "open", "Open calls"},
		{len(v.Groups) > 0, "timeline", "Timeline"},
		{len(v.Procedures) > 0, "latency", "Latency"},
		{len(v.Slow) > 0, "slow", "Slowest calls"},
		{true, "failures", "Errors"},
		{len(v.Flames) > 0, "stacks", "Stacks"},
		{true, "lost", "Lost"},
	} {
		if s.shown {
			d.add(`<li><a href="#%s">%s</a></li>`+"\n", s.id, s.name)
		}
	}
	d.add("</ul></nav>\n</header>\n")
}

func (d *document) figures(v *view) {
	d.add(`<dl class="figures">` + "\n")
	for _, f := range []struct {
		name  string
		n     int64
		class string // unless n is 0
	}{
		{"Calls", v.Counts.Calls, ""},
		{"Failed", v.Counts.Failed, "bad"},
		{"Without an answer", v.Counts.Open, "warn"},
		{"Messages", v.Counts.Messages, ""},
		{"libvirt events", v.Counts.Events, ""},
		{"Commands to QEMU", v.Counts.Commands, ""},
		{"New connections", v.Counts.Connections, ""},
		{"Lost", v.Lost, "bad"},
	} {
		d.add("<div")
		if f.n > 0 {
			d.maybe(` class="%s"`, f.class)
		}
		d.add("><dt>%s</dt><dd>%d</dd></div>\n", f.name, f.n)
	}
	d.add("</dl>\n")
	if v.Lost > 0 {
		d.add(`<p class="alert">%s could not be recorded: <a href="#lost">what was lost</a>. Counts and times below `+
			"leave them out.</p>\n", terminal.Counted(v.Lost, "event"))
	}
}

func (d *document) open(calls []callView) {
	if len(calls) == 0 {
		return
	}
	d.add(`<section id="open"><h2>Calls without an answer</h2>` + "\n")
	d.table("Calls without an answer", `<th class="n">Age</th><th>Procedure</th><th>Client</th><th>Daemon</th>`+
		`<th>Machine</th><th>Arguments</th><th>State</th>`, func() {
		for _, c := range calls {
			d.add(
				`<tr><td class="n">%s</td><th scope="row">%s</th><td>%s</td><td>%s</td><td>%s</td>`+
					`<td class="text">%s</td>`+
					"<td>%s</td></tr>\n", c.Took, c.Name, c.Client, c.Daemon, c.Machine, c.Arguments, c.Answer)
		}
	})
	d.add("</section>\n")
}

func (d *document) timeline(v *view) {
	if len(v.Groups) == 0 {
		return
	}
	d.add(`<section id="timeline"><h2>Timeline</h2>
<ul class="legend"><li><span class="key call"></span> call</li><li><span class="key failed"></span> failed</li>` +
		`<li><span class="key open"></span> without an answer</li>` +
		`<li><span class="key part"></span> command to QEMU</li>` +
		`<li><span class="key area"></span> calls at once</li></ul>
<p class="meta">Each picture zooms by its buttons, by + and −, and by Ctrl and the wheel; ` +
		`a bar leads to its call in the ` +
		"table below.</p>\n")
	for _, g := range v.Groups {
		d.group(g)
	}
	d.add(`<details id="calls"><summary>`)
	if v.Hidden > 0 {
		d.add("The %d calls that are bars: the longest of each lane; %d others are in the areas alone", len(v.Calls),
			v.Hidden)
	} else {
		d.add("All %d calls", len(v.Calls))
	}
	d.add("</summary>\n")
	d.table("Calls", `<th class="n">#</th><th class="n">Began, UTC</th><th class="n">Took</th><th>Procedure</th>`+
		`<th>Client</th><th>Daemon</th><th>Machine</th><th>Arguments</th><th>Answer</th>`, func() {
		for _, c := range v.Calls {
			d.call(c)
		}
	})
	d.add("</details>\n</section>\n")
}

func (d *document) group(g groupView) {
	d.add(`<div class="group"><h3 id="%s">%s</h3>
<p class="meta">%s</p>
%s
<details><summary>%s, as a table</summary>
`, g.ID, g.Title, g.Note, g.Picture, g.Title)
	d.table(g.Title, `<th>Name</th><th class="n">Calls</th><th class="n">Failed</th><th class="n">Open</th>`+
		`<th class="n">Time</th><th class="n">Longest</th>`, func() {
		for _, l := range g.Lanes {
			d.add(`<tr><th scope="row">%s</th><td class="n">%d</td><td class="n">%d</td><td class="n">%d</td>`+
				`<td class="n">%s</td><td class="n">%s</td></tr>`+"\n", l.Name, l.Calls, l.Failed, l.Open, l.Took,
				l.Longest)
		}
	})
	d.add("</details>\n</div>\n")
}

func (d *document) call(c callView) {
	d.add(`<tr id="call-%d"`, c.Number)
	d.maybe(` class="%s"`, c.State)
	d.add(
		`><td class="n">%d</td><td class="n">%s</td><td class="n">%s</td><th scope="row">%s</th><td>%s</td><td>%s</td>`+
			`<td>%s</td><td class="text">%s</td><td class="text">`,
		c.Number, clock(c.At), c.Took, c.Name, c.Client, c.Daemon, c.Machine, c.Arguments)
	d.maybe("<b>%s</b> ", c.State)
	d.add("%s</td></tr>\n", c.Answer)
}

func (d *document) latency(v *view) {
	if len(v.Procedures) == 0 {
		return
	}
	d.add(`<section id="latency"><h2>How long calls took</h2>
<p class="meta">All calls, on a logarithmic axis; the dashed lines are the median and the 99th percentile. `+
		`Percentiles `+
		`are exact: of 1000 calls, the 990th is the 99th percentile.</p>
<figure>%s</figure>
`, v.Times)
	d.table("Latency by procedure", `<th>Procedure</th><th class="n">Calls</th><th class="n">Failed</th>`+
		`<th class="n">Open</th><th class="n">p50</th><th class="n">p90</th><th class="n">p99</th>`+
		`<th class="n">p99.9</th>`+
		`<th class="n">Longest</th><th class="n">Total</th><th class="n">Share</th>`+
		`<th class="n" title="share of the time that was spent waiting for a worker">Queue</th>`+
		`<th class="spread">Distribution</th>`, func() {
		for _, p := range v.Procedures {
			d.procedure(p)
		}
	})
	d.add("\n</section>\n")
}

func (d *document) procedure(p procedureView) {
	number := func(n int64, class string) {
		if n == 0 {
			d.add(`<td class="n">0</td>`)
			return
		}
		d.add(`<td class="n"><b class="%s">%d</b></td>`, class, n)
	}
	d.add(`<tr><th scope="row">%s</th><td class="n">%d</td>`, p.Name, p.Calls)
	number(p.Failed, "bad")
	number(p.Open, "warn")
	if p.Calls == 0 {
		d.add(`<td colspan="9">no call was answered</td></tr>` + "\n")
		return
	}
	for _, took := range []time.Duration{p.P50, p.P90, p.P99, p.P999, p.Max, p.Total} {
		d.add(`<td class="n">%s</td>`, took)
	}
	d.add(`<td class="n">%.1f %%</td><td class="n">%.1f %%</td><td class="spread">%s</td></tr>`+"\n",
		p.Share, p.Queue, p.Times)
}

func (d *document) slow(calls []slowView) {
	if len(calls) == 0 {
		return
	}
	d.add(`<section id="slow"><h2>Slowest calls</h2>` + "\n")
	for _, c := range calls {
		d.add(`<details class="slow`)
		d.maybe(" %s", c.State)
		d.add(`"><summary><span class="took">%s</span> <b>%s</b> <span class="meta">%s`, c.Took, c.Name, c.Client)
		d.maybe(", %s", c.Machine)
		d.maybe(", %s", c.State)
		d.add("</span></summary>\n<dl>\n")
		d.facts(c)
		d.add("</dl>\n%s\n", c.Picture)
		d.commands(c)
		d.stack("The client's stack when it called", c.Made)
		d.stack("The daemon's stack when it answered", c.Answered)
		d.add("</details>\n")
	}
	d.add("</section>\n")
}

func (d *document) facts(c slowView) {
	d.add("<dt>Began</dt><dd>%s UTC, %s after the beginning</dd>\n", clock(c.At), c.Began)
	d.add("<dt>Client</dt><dd>%s</dd>\n<dt>Daemon</dt><dd>%s</dd>\n", c.Client, c.Daemon)
	d.maybe("<dt>Machine</dt><dd>%s</dd>\n", c.Machine)
	for _, part := range []struct {
		name string
		took time.Duration
	}{{"Waited for a worker", c.Queue}, {"In the daemon", c.Service}, {"There and back", c.Network}} {
		if part.took != 0 {
			d.add("<dt>%s</dt><dd>%s</dd>\n", part.name, part.took)
		}
	}
	d.maybe("<dt>Arguments</dt><dd><code>%s</code></dd>\n", c.Arguments)
	d.add("<dt>Answer</dt><dd><code>%s</code></dd>\n", c.Answer)
}

func (d *document) commands(c slowView) {
	if len(c.Commands) == 0 {
		return
	}
	d.table("Commands to QEMU of call "+strconv.Itoa(c.Number), `<th class="n">After</th><th class="n">Took</th>`+
		`<th>Command to QEMU</th><th>Arguments</th><th>Answer</th>`, func() {
		for _, q := range c.Commands {
			d.add(`<tr><td class="n">%s</td><td class="n">`, q.After)
			if q.Took != 0 {
				d.add("%s", q.Took)
			}
			d.add(`</td><th scope="row">%s</th><td class="text">%s</td><td>%s</td></tr>`+"\n", q.Name, q.Text, q.State)
		}
	})
	if c.More > 0 {
		d.add(`<p class="meta">and %d more</p>`, c.More)
	}
	d.add("\n")
}

func (d *document) stack(title string, frames []string) {
	if len(frames) == 0 {
		return
	}
	d.add(`<h3>%s</h3><ol class="stack">`, title)
	for _, f := range frames {
		d.add("<li>%s</li>", f)
	}
	d.add("</ol>\n")
}

func (d *document) failures(v *view) {
	d.add(`<section id="failures"><h2>Errors</h2>` + "\n")
	if len(v.Failures) == 0 {
		d.add("<p>No call failed.</p>")
	} else {
		d.table("Errors of calls",
			`<th class="n">Calls</th><th>Procedure</th><th>Error</th><th class="text">Message</th>`+
				`<th class="n">First</th><th class="n">Last</th><th>Last client</th>`, func() {
				for _, f := range v.Failures {
					d.add(
						`<tr><td class="n">%d</td><th scope="row">%s</th><td>%s</td>`+
							`<td class="text">%s</td><td class="n">%s</td>`+
							`<td class="n">%s</td><td>%s</td></tr>`+"\n",
						f.Count, f.Procedure, f.Code, f.Text, clock(f.First), clock(f.Last), f.Client)
				}
			})
	}
	d.add("\n")
	if len(v.Notes) > 0 {
		d.add("<h3>Refusals, losses and what else was noticed</h3>\n" + `<ul class="notes">`)
		for _, n := range v.Notes {
			d.add("<li><time>%s</time> %s</li>", clock(n.At), n.Text)
		}
		d.add("</ul>")
		if v.MoreNotes > 0 {
			d.add(`<p class="meta">and %d more</p>`, v.MoreNotes)
		}
		d.add("\n")
	}
	d.add("</section>\n")
}

func (d *document) stacks(flames []flameView) {
	if len(flames) == 0 {
		return
	}
	d.add(`<section id="stacks"><h2>Stacks</h2>
<p class="meta">The outermost function is at the top, the event that was seen at the bottom. ` +
		`A click or Enter zooms into ` +
		"a function, Esc goes back; arrow keys move.</p>\n")
	for _, f := range flames {
		d.add(`<div class="group"><h3 id="flame-%s">%s</h3>
<p class="meta">%s</p>
%s
<details><summary>%s, as a table of functions</summary>
`, f.ID, f.Title, f.Note, f.Picture, f.Title)
		d.table("Functions, "+f.Title, `<th>Function</th><th class="n">Itself</th><th class="n">With callees</th>`+
			`<th class="n">Share</th>`, func() {
			for _, n := range f.Functions {
				d.add(
					`<tr><th scope="row">%s</th><td class="n">%s</td><td class="n">%s</td>`+
						`<td class="n">%.1f %%</td></tr>`+"\n",
					n.Name, n.Self, n.Total, n.Share)
			}
		})
		d.add("</details></div>\n")
	}
	d.add("</section>\n")
}

func (d *document) lost(v *view) {
	d.add(`<section id="lost"><h2>What was lost</h2>` + "\n")
	if len(v.Losses) == 0 {
		d.add("<p>No event was lost of %d.</p>\n", v.Seen)
	} else {
		d.table("What was lost", `<th class="n">Events</th><th>Probe</th><th>Process</th>`, func() {
			for _, l := range v.Losses {
				d.add(`<tr><td class="n">%d</td><th scope="row">%s</th><td>%s`, l.Lost, l.Probe, l.Comm)
				if l.PID != 0 {
					d.add("[%d]", l.PID)
				}
				d.add("</td></tr>\n")
			}
		})
		d.add("\n")
	}
	if v.Counts.Headers > 0 {
		d.add("<p>Of %s only the header was captured: arguments and answers are missing.</p>\n",
			terminal.Counted(v.Counts.Headers, "message"))
	}
	d.add("</section>\n")
}
