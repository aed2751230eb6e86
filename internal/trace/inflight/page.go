package inflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
)

// show shows what is open each interval.
func (c Config) show(ctx context.Context, session *capture.Session, in io.Reader, out io.Writer,
	s terminal.Screen,
) error {
	l := NewLooker()
	defer l.Close()
	look := func() []Daemon { return l.Look(session.Libraries(), session.Snapshot(ctx)) }
	if !terminal.IsTerminal(out) || c.JSON {
		return c.print(ctx, out, s, look)
	}
	p := &page{Config: c, look: look, screen: s}
	_, err := tea.NewProgram(p, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil // it was interrupted
	}
	return err
}

// print writes what is open each interval, one after the other.
func (c Config) print(ctx context.Context, out io.Writer, s terminal.Screen, look func() []Daemon) error {
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		daemons := look()
		if ctx.Err() != nil {
			return nil
		}
		if n > 1 && !c.JSON {
			fmt.Fprintln(out)
		}
		if err := c.write(out, s, daemons); err != nil || n == c.Count {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// page is what is open, as bubbletea draws it.
type page struct {
	Config
	look   func() []Daemon
	screen terminal.Screen
	text   string
	shown  int
	height int
	paused bool
}

// looked is what the daemons do, as text.
type looked string

func (p *page) refresh() tea.Msg {
	var b strings.Builder
	_ = p.write(&b, p.screen, p.look()) // a Builder takes everything
	return looked(b.String())
}

// tick is the end of an interval.
type tick struct{}

// Init looks for the first time.
func (p *page) Init() tea.Cmd { return p.refresh }

// Update takes a key, what was looked at, or the end of an interval.
func (p *page) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		p.screen.Width, p.height = msg.Width, msg.Height
	case tick:
		if !p.paused {
			return p, p.refresh
		}
		return p, p.wait()
	case looked:
		p.text = string(msg)
		if p.shown++; p.shown == p.Count {
			return p, tea.Quit
		}
		return p, p.wait()
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return p, tea.Quit
		case "space":
			p.paused = !p.paused
		}
	}
	return p, nil
}

func (p *page) wait() tea.Cmd {
	return tea.Tick(p.Interval, func(time.Time) tea.Msg { return tick{} })
}

// View draws the page, as much of it as there is room for.
func (p *page) View() tea.View {
	head := "open calls; space: pause, q: end"
	if p.paused {
		head = "open calls, paused; space: go on, q: end"
	}
	lines := append([]string{head}, strings.Split(strings.TrimSuffix(p.text, "\n"), "\n")...)
	if p.height > 0 && len(lines) > p.height {
		lines = lines[:p.height]
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}
