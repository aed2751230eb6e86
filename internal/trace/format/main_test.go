package format_test

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"sync"
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
	return tracedUntil(t, func(func(*regexp.Regexp)) { do() }, c, f)
}

// tracedUntil is traced for what happens after a client has its last reply. It
// gives do a function that waits until what is written matches.
func tracedUntil(t *testing.T, do func(written func(*regexp.Regexp)), c capture.Config, f format.Config) string {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	var out output
	w, err := format.New(&out, f)
	if err != nil {
		t.Fatal(err)
	}
	livetest.Run(t, func() {
		do(out.await)
	}, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
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

// output is what has been written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// await returns when the output matches. Where it does not within a minute, the
// test that looks for the same says so.
func (o *output) await(what *regexp.Regexp) {
	for start := time.Now(); !what.MatchString(o.String()) && time.Since(start) < time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
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
