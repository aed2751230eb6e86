package record

import (
	"context"
	"errors"
	"os"

	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
)

// File says where a trace is recorded.
type File struct {
	Name  string // of a file that must not exist; it gets the mode 0600
	Limit int64  // bytes; 0 means no limit
}

// Trace records a trace with c into f until ctx ends or f is full, and returns what
// was seen and lost. ready is called once events are seen. A trace that cannot begin
// leaves no file.
func (f File) Trace(ctx context.Context, c capture.Config, ready func(*capture.Session)) (sum event.Summary, full bool,
	err error,
) {
	out, err := durable.CreatePrivate(f.Name)
	if err != nil {
		return sum, false, err
	}
	r, err := NewRecorder(out, f.Limit)
	if err != nil {
		return sum, false, errors.Join(err, out.Close(), os.Remove(f.Name))
	}
	began := false
	c.Record, c.Queue = r, true // a replay may show how long calls waited
	sum, err = capture.Trace(ctx, c, nil, func(s *capture.Session) error {
		began = true
		ready(s)
		return nil
	})
	if !began {
		return sum, false, errors.Join(err, out.Close(), os.Remove(f.Name))
	}
	if full = errors.Is(err, ErrFull); full {
		err = nil
	}
	if err == nil {
		err = r.Idle()
	}
	return sum, full, errors.Join(err, out.Close())
}
