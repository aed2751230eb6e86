package inflight

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/format"
)

// WriteText writes for a reader what daemons do: of each a line, its open calls, each
// with what it waits for, and its clients.
func WriteText(w io.Writer, s terminal.Screen, daemons []Daemon) error {
	twins := twins(daemons)
	var b strings.Builder
	for i := range daemons {
		if i > 0 {
			b.WriteByte('\n')
		}
		d := &daemons[i]
		b.WriteString(s.Cut(d.heading()) + "\n")
		for _, p := range d.Problems {
			b.WriteString(terminal.Wrap("  problem: "+p, s.Width, 0) + "\n")
		}
		for _, line := range d.lines(twins) {
			b.WriteString(s.Cut(line) + "\n")
		}
		if err := d.clients().Print(&b, s); err != nil {
			return err
		}
		for i := range d.NotAccepted {
			b.WriteString(s.Cut("not accepted: "+d.NotAccepted[i].String()) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// heading says in a line how much a daemon does, and how much it can.
func (d *Daemon) heading() string {
	parts := []string{terminal.Counted(len(d.Calls), "call") + " open"}
	for _, s := range d.Servers {
		if s.Name == adminServer {
			continue
		}
		parts = append(parts, fmt.Sprintf("%d of %d workers busy", s.Busy, s.MaxWorkers))
		if s.Queued > 0 {
			parts = append(parts, terminal.Counted(s.Queued, "call")+" without a worker")
		}
		clients := fmt.Sprintf("%d of %d clients", s.Clients, s.MaxClients)
		if s.Unauthenticated > 0 {
			clients += fmt.Sprintf(" (%d of %d not authenticated yet)", s.Unauthenticated, s.MaxUnauthenticated)
		}
		parts = append(parts, clients)
	}
	if n := len(d.NotAccepted); n > 0 {
		parts = append(parts, terminal.Counted(n, "client")+" not accepted")
	}
	return fmt.Sprintf("%s %s[%d]: %s", d.Time.Local().Format(time.TimeOnly), d.Name, d.PID, strings.Join(parts, ", "))
}

// lines are two for each call: who calls what, and what that waits for.
func (d *Daemon) lines(twins map[string]bool) (lines []string) {
	wide, ages := 0, make([]string, len(d.Calls))
	for i := range d.Calls {
		ages[i] = d.Calls[i].age()
		wide = max(wide, len([]rune(d.Calls[i].Client.String())))
	}
	for i := range d.Calls {
		c := &d.Calls[i]
		lines = append(lines, fmt.Sprintf("%10s  %-*s  %s.%s(%s)", ages[i], wide, c.Client, c.Program, c.Procedure,
			c.text))
		if c.Waits != nil {
			if text := c.waits(twins); text != "" {
				lines = append(lines, strings.Repeat(" ", 12)+text)
			}
		}
	}
	return lines
}

// age says how old a call is, or can be.
func (c *Call) age() string {
	switch c.AgeIs {
	case Exact:
		return duration(c.Age)
	case AtLeast:
		return ">" + duration(c.Age)
	case AtMost:
		return "<" + duration(c.Age)
	}
	return "?"
}

func duration(micros int64) string {
	d := time.Duration(micros) * time.Microsecond
	if d > 10*time.Minute {
		return d.Round(time.Second).String()
	}
	return format.Duration(d)
}

// waits says what a call waits for.
func (c *Call) waits(twins map[string]bool) string {
	w := c.Waits
	switch w.For {
	case ForWorker:
		return "waits for a worker"
	case ForJob:
		return "waits for the job of " + c.Domain.name(twins) + w.Holder.has()
	case ForMonitor:
		text := "waits for QEMU"
		switch {
		case c.Domain != nil && c.Domain.Name == w.Machine:
			text += " of " + c.Domain.name(twins)
		case w.Machine != "":
			text += " of " + w.Machine
		}
		if w.Command != "" {
			text += " to answer " + w.Command
		}
		if w.Age > 0 {
			text += ", for " + duration(w.Age)
		}
		return text
	case ForAgent:
		return "waits for the guest agent of " + c.Domain.name(twins)
	case ForLock:
		return "waits for a lock in " + cmp.Or(w.In, "the daemon") + w.Holder.has()
	case ForDaemon:
		return "waits for another daemon"
	case ForProgram:
		return "waits for a program" + strings.TrimSuffix(": "+w.Command, ": ")
	}
	if w.In == "" {
		return ""
	}
	return "waits in " + w.In
}

// has says who has what is waited for.
func (h *Holder) has() string {
	if h == nil {
		return ""
	}
	who := cmp.Or(h.Call, h.API, "thread "+strconv.Itoa(h.Thread))
	switch {
	case h.Client != nil:
		who += " of " + h.Client.String()
	case h.Name != "":
		who += " in thread " + h.Name + "[" + strconv.Itoa(h.Thread) + "]"
	}
	text := ", which " + who + " has"
	if h.Age > 0 {
		text += " for " + duration(h.Age)
	}
	return text
}

// name names a machine: with its UUID where several have the name.
func (d *Domain) name(twins map[string]bool) string {
	switch {
	case d == nil:
		return "a machine"
	case d.Name == "":
		return d.UUID
	case twins[d.Name]:
		return d.Name + " (" + d.UUID + ")"
	}
	return d.Name
}

// twins returns the names that several machines have.
func twins(daemons []Daemon) map[string]bool {
	first, twins := map[string]string{}, map[string]bool{}
	for i := range daemons {
		for _, c := range daemons[i].Calls {
			if c.Domain == nil || c.Domain.Name == "" || c.Domain.UUID == "" {
				continue
			}
			if known := first[c.Domain.Name]; known != "" && known != c.Domain.UUID {
				twins[c.Domain.Name] = true
			}
			first[c.Domain.Name] = c.Domain.UUID
		}
	}
	return twins
}

// group is the connections of one client.
type group struct {
	who         string
	connections int
	calls       int
	since       time.Time
}

// clients lists who is connected, most connections first.
func (d *Daemon) clients() terminal.Table {
	groups := map[string]*group{}
	for _, c := range d.Connections {
		who := c.Client.String()
		if c.Client.PID == 0 {
			who, _, _ = strings.Cut(who, ";")
		}
		g := groups[who]
		if g == nil {
			g = &group{who: who, since: c.Since}
			groups[who] = g
		}
		g.connections++
		g.calls += c.Calls
		if c.Since.Before(g.since) {
			g.since = c.Since
		}
	}
	var list []*group
	for _, g := range groups {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.connections, a.connections), a.since.Compare(b.since), cmp.Compare(a.who, b.who))
	})
	var t terminal.Table
	if len(list) > 0 {
		t.Headed = true
		t.Rows = append(t.Rows, []string{"CLIENT", "CONNECTIONS", "CALLS", "SINCE"})
	}
	for _, g := range list {
		t.Rows = append(t.Rows, []string{
			g.who, strconv.Itoa(g.connections), strconv.Itoa(g.calls), terminal.Time(g.since),
		})
	}
	return t
}
