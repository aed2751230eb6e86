package front

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestAuditRequiredClosesWhatCannotBeRecorded lets the timeline fail: the location that
// requires a record closes, also for a connection that passed before, and the other stays
// open and counts what could not be written.
func TestAuditRequiredClosesWhatCannotBeRecorded(t *testing.T) {
	var broken, seen atomic.Bool // the timeline is; that it is was noticed
	var lost atomic.Int64
	h := newRig(t, func(r *Runtime) {
		log := r.Log
		r.Log = func(ctx context.Context, e ...postern.Event) error {
			if broken.Load() {
				return errors.New("the disk is full")
			}
			return log(ctx, e...)
		}
		r.Writable = func() bool { return !seen.Load() }
		r.Lost = func(n int64, _ error) { lost.Store(n) }
	})
	ann := h.person(t, "ann")
	https, _ := h.serve(t, `localhost:HTTPS {
	require /audited {
		audit required
	}
	require /other
	respond passed
}`)
	asks := func(c *http.Client, path string) int {
		status, _ := get(t, c, fmt.Sprintf("https://localhost:%d%s", https, path))
		return status
	}
	before, after := h.client1(t, ann), h.client1(t, ann)
	if status := asks(before, "/audited"); status != http.StatusOK {
		t.Fatal(status)
	}
	h.mu.Lock()
	if n := len(h.events); n == 0 || h.events[n-1].Kind != postern.EventSignedIn {
		t.Errorf("the request passed before it was recorded: %+v", h.events)
	}
	h.mu.Unlock()

	broken.Store(true)
	if status := asks(after, "/audited"); status != http.StatusServiceUnavailable {
		t.Errorf("a sign-in that cannot be recorded: %d", status)
	}
	if status := asks(after, "/other"); status != http.StatusOK {
		t.Errorf("a location that requires no record: %d", status)
	}
	seen.Store(true)
	if status := asks(before, "/audited"); status != http.StatusServiceUnavailable {
		t.Errorf("a connection that passed before: %d", status)
	}
	for current().events.Unwritten() == 0 {
		posterntest.Pause(t)
	}
	broken.Store(false)
	seen.Store(false)
	if status := asks(after, "/audited"); status != http.StatusOK {
		t.Errorf("the timeline can be written again: %d", status)
	}
	for current().events.Unwritten() != 0 {
		posterntest.Pause(t)
	}
	if lost.Load() != 0 {
		t.Error(lost.Load(), "events are lost")
	}
}
