package format_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/livetest"
)

// traced returns what is written of a trace while do runs.
func traced(t *testing.T, do func(), c capture.Config, f format.Config) string {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	var out bytes.Buffer
	w, err := format.New(&out, f)
	if err != nil {
		t.Fatal(err)
	}
	livetest.Run(t, do, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
		sum, err := capture.Trace(ctx, c, w, func(s *capture.Session) error {
			ready(s)
			return w.Begin(system.Monotonic(), time.Now())
		})
		if err != nil {
			return sum, err
		}
		return sum, w.End(sum.Seen, sum.Losses)
	})
	return out.String()
}

// lines returns the lines of s that hold.
func lines(s string, hold func(string) bool) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimRight(line, "\n"); hold(line) {
			out = append(out, line)
		}
	}
	return out
}
