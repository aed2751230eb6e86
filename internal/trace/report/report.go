// Package report makes a page of a recording: who called what when, how long it took, what
// failed, what QEMU was asked, where stacks led, and what was lost. The page is one file
// that loads nothing; secrets in it are masked. What it costs is bounded by what it shows,
// besides eight bytes a call.
package report

import (
	"io"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/stack"
)

// Report says how a recording is reported.
type Report struct {
	Filter  correlate.Filter // what is chosen of it
	Name    string           // of the recording, as the page calls it
	Version string           // of the program
	Namer   *stack.Namer     // names functions that the recording does not; nil for none
}

// Write writes the page of a recording. It returns what that holds, and what the page
// shows, in words.
func (r Report) Write(in io.Reader, w io.Writer) (sum event.Summary, written string, err error) {
	g := newGatherer()
	if sum, err = record.Replay(in, r.Filter, false, stack.Naming{Sink: g, Namer: r.Namer}); err != nil {
		return sum, "", err
	}
	g.finish()
	return sum, "a page of " + terminal.Counted(g.counts.Calls+g.counts.Open, "call") + " written", r.page(g, sum, w)
}
