package relay_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestAWrongClockIsSaid has hosts with right and wrong clocks report a call: its time on the
// timeline is the server's, and its entry says by how much the host's was wrong.
func TestAWrongClockIsSaid(t *testing.T) {
	s := newServer(t)
	for i, c := range []struct {
		ahead time.Duration
		known bool // a sender of an earlier version does not say its time
		said  string
	}{
		{2 * time.Hour, true, "2h0m0s ahead"},
		{-400 * 24 * time.Hour, true, "9600h0m0s behind"},
		{time.Second, true, ""},
		{0, false, ""},
	} {
		host := time.Now().Add(c.ahead)
		e, now := call(fmt.Sprint("vm", i)), ""
		e.Time = host
		if c.known {
			now = `,"now":"` + host.Format(time.RFC3339Nano) + `"`
		}
		head := fmt.Sprintf(`{"agent":"00112233445566778899aabbccddeef%d","host":"hv1"%s}`, i, now)
		if status := s.post(t, head, encode(t, 1, e)); status != http.StatusOK {
			t.Fatalf("%v: status %d", c.ahead, status)
		}
		got := s.newest(t)
		if got.Object != e.Object {
			t.Fatalf("the newest entry is of %s", got.Object)
		}
		if said := got.Details[postern.DetailClock]; said != c.said {
			t.Errorf("a clock that is %v ahead: the entry says %q", c.ahead, said)
		}
		if off := time.Since(got.Time); off < -time.Minute || off > time.Hour {
			t.Errorf("a clock that is %v ahead: the entry is %v old", c.ahead, off)
		}
	}
}

// newest returns the newest entry of the timeline.
func (s *server) newest(t *testing.T) postern.Event {
	t.Helper()
	events := storetest.Events(t, s.db)
	return events[len(events)-1]
}
