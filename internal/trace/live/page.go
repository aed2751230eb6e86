package live

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Page is what stays in place on a terminal and is refreshed each interval. Space pauses
// it, and q ends it.
type Page struct {
	Interval time.Duration
	Count    int  // ends after so many refreshes; 0 means never
	Later    bool // the first refresh is at the end of the first interval
	// Refresh reads what is new for a terminal of so many columns, while the page goes on; 0
	// columns are unknown. It returns what takes that into the page.
	Refresh func(width int) (take func())
	// Draw returns the page's text. What does not fit is cut.
	Draw func(width int, paused bool) string
	Key  func(key string) // takes other keys; nil for none
}

// Show shows the page until ctx ends, the reader ends it, or all intervals are over.
func (p Page) Show(ctx context.Context, in io.Reader, out io.Writer) error {
	_, err := tea.NewProgram(&model{Page: p}, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil // it was interrupted
	}
	return err
}

// model is a page as bubbletea has it.
type model struct {
	Page
	width, height int
	shown         int // refreshes
	paused        bool
}

type (
	tick      struct{} // the end of an interval
	refreshed func()   // takes what was read
)

// Init begins the first refresh or interval.
func (m *model) Init() tea.Cmd {
	if m.Later {
		return m.wait()
	}
	return m.refresh()
}

func (m *model) wait() tea.Cmd {
	return tea.Tick(m.Interval, func(time.Time) tea.Msg { return tick{} })
}

func (m *model) refresh() tea.Cmd {
	width := m.width
	return func() tea.Msg { return refreshed(m.Refresh(width)) }
}

// Update takes a key, the end of an interval, or what was read.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tick:
		if m.paused {
			return m, m.wait()
		}
		return m, m.refresh()
	case refreshed:
		msg()
		if m.shown++; m.shown == m.Count {
			return m, tea.Quit
		}
		return m, m.wait()
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	}
	return m, nil
}

func (m *model) key(key string) tea.Cmd {
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "space":
		m.paused = !m.paused
	default:
		if m.Key != nil {
			m.Key(key)
		}
	}
	return nil
}

// View draws the page, as much of it as there is room for.
func (m *model) View() tea.View {
	lines := strings.Split(strings.TrimSuffix(m.Draw(m.width, m.paused), "\n"), "\n")
	if m.height > 0 && len(lines) > m.height {
		lines = lines[:m.height]
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}
