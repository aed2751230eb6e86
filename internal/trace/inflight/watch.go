package inflight

import (
	"context"
	"io"
	"path"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/live"
)

// Config says which daemons are shown, and what of them.
type Config struct {
	Capture capture.Config // its PIDs and paths choose the daemons
	Domains []string       // only calls about these virtual machines: globs on their names; none means all
	JSON    bool           // a Daemon a line
	// Of Watch: how long between two looks, at least 100 ms, and how many; 0 means no end.
	Interval time.Duration
	Count    int
}

// Print looks at the daemons once, and writes what they do. It traces nothing. A
// NotFound error says that there are none.
func (c Config) Print(out io.Writer, s terminal.Screen) error {
	if err := c.Validate(); err != nil {
		return err
	}
	libs, err := capture.Find(c.Capture)
	if err != nil {
		return err
	}
	l := NewLooker()
	defer l.Close()
	daemons := l.Look(libs, correlate.Snapshot{})
	if len(daemons) == 0 {
		return postern.Errorf(postern.NotFound, "none of libvirt's daemons runs here")
	}
	return c.write(out, s, daemons)
}

// write writes what is chosen of what daemons do.
func (c Config) write(out io.Writer, s terminal.Screen, daemons []Daemon) error {
	for i := range daemons {
		daemons[i].Calls = slices.DeleteFunc(daemons[i].Calls, func(call Call) bool { return !c.chooses(&call) })
	}
	if !c.JSON {
		return WriteText(out, s, daemons)
	}
	for i := range daemons {
		if err := terminal.JSON(out, &daemons[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) chooses(call *Call) bool {
	name := ""
	if call.Domain != nil {
		name = call.Domain.Name
	}
	if call.Waits != nil && name == "" {
		name = call.Waits.Machine
	}
	return len(c.Domains) == 0 || slices.ContainsFunc(c.Domains, func(glob string) bool {
		ok, err := path.Match(glob, name)
		return err == nil && ok
	})
}

// Validate returns an Invalid error for what cannot be shown.
func (c Config) Validate() error {
	for _, glob := range c.Domains {
		if _, err := path.Match(glob, ""); err != nil {
			return postern.Errorf(postern.Invalid, "%q: %w", glob, err)
		}
	}
	if c.Interval < 100*time.Millisecond || c.Count < 0 {
		return postern.Errorf(postern.Invalid, "an interval lasts at least 100ms, and their number is not negative")
	}
	return nil
}

// Watch traces the daemons and shows what they do each interval, until ctx ends, the
// reader ends it, or all intervals are over: on a terminal in place. It knows exactly since
// when calls are open that it has seen begin. ready is called once it sees.
func (c Config) Watch(
	ctx context.Context, in io.Reader, out io.Writer, s terminal.Screen, ready func(*capture.Session),
) (sum event.Summary, err error) {
	if err := c.Validate(); err != nil {
		return sum, err
	}
	cfg := c.Capture
	cfg.What = capture.RPC | capture.Monitor
	return live.Trace(ctx, cfg, ignore{}, ready,
		func(ctx context.Context, session *capture.Session, _ <-chan struct{}) error {
			return c.show(ctx, session, in, out, s)
		})
}

// ignore is a sink for a trace of which only what is open matters.
type ignore struct{}

func (ignore) Event(*event.Event) error { return nil }
func (ignore) Idle() error              { return nil }
