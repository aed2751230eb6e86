// Package console answers what administrators ask of an installation: what the timeline
// says, page by page and as it is written, and what an entry rests on. It reads the
// timeline by an interface and returns plain data; the portal makes pages of them.
package console

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Log is the timeline. It may be used from several goroutines.
type Log interface {
	timeline.Source
	// LogSize returns how many entries there are.
	LogSize(ctx context.Context) (int64, error)
	// ProveEvent returns the proof that the timeline contains an entry: NotFound if not.
	ProveEvent(ctx context.Context, index int64) (timeline.Proof, error)
	// Witnesses returns what each witness said last about the timeline.
	Witnesses(ctx context.Context) ([]timeline.Witnessed, error)
}

// Console reads the timeline for administrators. Its methods may be called from several
// goroutines.
type Console struct{ Log Log }

// maxEvidence is how many entries of one link are read to say in a sentence who did
// something: the check of a login is among its first.
const maxEvidence = 100

// evidence is a source for the joins of one page. It remembers what it was asked, since
// entries of one session ask for the same.
type evidence struct {
	timeline.Source
	found map[postern.Link][]postern.Event
}

func newEvidence(src timeline.Source) evidence {
	return evidence{src, map[postern.Link][]postern.Event{}}
}

// Events implements [timeline.Source].
func (s evidence) Events(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	if events, ok := s.found[f.Link]; ok {
		return events, nil
	}
	f.Limit = min(f.Limit, maxEvidence)
	events, err := s.Source.Events(ctx, f)
	if err == nil {
		s.found[f.Link] = events
	}
	return events, err
}

// line returns an entry as it is shown.
func (s evidence) line(ctx context.Context, e postern.Event) (Line, error) {
	joined, err := timeline.Join(ctx, s, e)
	if err != nil {
		return Line{}, err
	}
	return newLine(e, joined), nil
}
