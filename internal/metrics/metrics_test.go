package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

func newMetrics(stored func(context.Context) (Stored, error)) *Metrics {
	return New("devel", Sources{
		Up: func() bool { return true }, Codes: func() bool { return true },
		Decisions: func() map[string]int64 { return map[string]int64{"ok": 2} },
		Unwritten: func() int64 { return 0 }, Free: func() (int64, bool) { return 1, true },
		CAs:    func() []CA { return []CA{{"root", time.Unix(1000, 0)}} },
		Stored: stored,
	})
}

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func empty(context.Context) (Stored, error) { return Stored{}, nil }

// TestLabelsAreBounded writes events with names, addresses and kinds that clients choose:
// none of them becomes a label, and the number of series is bounded.
func TestLabelsAreBounded(t *testing.T) {
	m := newMetrics(empty)
	for i := range 1000 {
		chosen := fmt.Sprintf("chosen%d", i)
		for _, kind := range []string{
			postern.EventOTP, postern.EventAccessRefused, postern.EventSSHAuth, postern.EventPAMAuth,
			postern.EventACMEOrder,
			postern.EventLibvirtCall, chosen,
		} {
			m.Wrote(nil, []postern.Event{{
				Kind: kind, Outcome: postern.Outcome(chosen), Person: chosen, Address: chosen, Object: chosen,
				Host:   chosen,
				Reason: chosen, Details: map[string]string{"procedure": chosen},
			}})
		}
	}
	if text := scrape(m); strings.Contains(text, "chosen") {
		t.Error("a label is what a client has chosen")
	}
	for i := range 1000 { // the configuration's names of profiles
		m.Wrote(nil, []postern.Event{{
			Kind: postern.EventCertIssued, Outcome: postern.OK,
			Details: map[string]string{"profile": fmt.Sprint("p", i)},
		}})
	}
	if n := strings.Count(scrape(m), "postern_certificates_issued_total{"); n != maxProfiles+1 {
		t.Errorf("%d profiles have a series", n)
	}
}

func TestEventsAreCountedAsOftenAsTheyHappened(t *testing.T) {
	m := newMetrics(empty)
	m.Wrote([]time.Duration{time.Millisecond, time.Millisecond}, []postern.Event{
		{Kind: postern.EventOTP, Outcome: postern.Refused, Count: 40},
		{Kind: postern.EventOTP, Outcome: postern.Refused},
		{Kind: postern.EventAgentLost, Outcome: postern.Failed, Count: 7},
		{Kind: postern.EventSignedIn, Outcome: postern.OK},
		{Kind: postern.EventCertIssued, Outcome: postern.Refused, Details: map[string]string{"profile": "client"}},
	})
	m.NotWritten(3)
	text := scrape(m)
	for _, want := range []string{
		`postern_codes_total{outcome="refused"} 41`, "postern_agent_lost_events_total 7",
		`postern_logins_total{by="certificate",outcome="ok"} 1`, "postern_write_seconds_count 2",
		"postern_write_batch_size_sum 2", "postern_write_failures_total 3", `postern_decisions_total{reason="ok"} 2`,
		`postern_ca_end_timestamp_seconds{ca="root"} 1000`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "postern_certificates_issued_total{") {
		t.Error("a certificate that was not issued is counted")
	}
}

func TestScrapeWithoutADatabase(t *testing.T) {
	text := scrape(newMetrics(func(context.Context) (Stored, error) { return Stored{}, errors.New("unavailable") }))
	if !strings.Contains(text, "postern_database_up 1\n") || strings.Contains(text, "postern_timeline_entries") {
		t.Errorf("without what the database says:\n%s", text)
	}
}
