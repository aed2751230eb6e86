package alert_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/alert"
	"github.com/postern-project/postern/internal/webhook"
	"github.com/postern-project/postern/timeline"
)

func TestWhatMatchesIsReported(t *testing.T) {
	w := newWorld(t)
	r := w.reporter(alert.Alert{
		Name: "admin", Every: time.Minute,
		When: `event.kind == "gate.refused" && event.object.startsWith("/wp-admin") && event.address != "192.0.2.8"`,
	})
	w.append(refused("/other", 0))
	w.reports(r)
	w.append(refused("/wp-admin/1", 0))
	w.reports(r, "admin /wp-admin/1 1")
	w.append(refused("/wp-admin/2", 3), refused("/wp-admin/3", 0))
	w.reports(r) // too soon after the first
	w.now = w.now.Add(time.Minute)
	w.reports(w.reporter(alert.Alert{ // as after a restart
		Name: "admin", Every: time.Minute,
		When: `event.kind == "gate.refused" && event.object.startsWith("/wp-admin")`,
	}), "admin /wp-admin/3 4")
	w.reports(r)
}

func TestFloodIsReportedOnceItIsOne(t *testing.T) {
	w := newWorld(t)
	flood := alert.Alert{Name: "refusal-flood"}
	r := w.reporter(flood)
	w.append(refused("/", 60), refused("/", 39))
	w.reports(r)
	w.append(postern.Event{Kind: postern.EventOTP, Outcome: postern.OK, Count: 50})
	w.reports(r)
	w.append(postern.Event{Kind: postern.EventOTP, Outcome: postern.Refused, Object: "code"})
	w.reports(w.reporter(flood), "refusal-flood code 100") // what was counted outlasts a restart
	w.now = w.now.Add(2 * time.Hour)
	w.append(refused("/", 99))
	w.now = w.now.Add(2 * time.Minute)
	w.append(refused("/", 99))
	w.reports(r) // neither within a minute of the other
}

func TestAddressThatIsNewForAPerson(t *testing.T) {
	w := newWorld(t)
	r := w.reporter(alert.Alert{Name: "new-address", Every: time.Nanosecond})
	in := func(person, address, object string) postern.Event {
		return postern.Event{
			Kind: postern.EventSignedIn, Outcome: postern.OK, Person: person, Address: address, Object: object,
		}
	}
	w.append(in("ann", "192.0.2.1", "first"), in("bob", "192.0.2.2", "first of another"),
		in("ann", "192.0.2.1", "same"))
	w.reports(r)
	w.append(in("ann", "192.0.2.2", "new"))
	w.reports(r, "new-address new 1")
	w.now = w.now.Add(time.Second)
	w.append(in("ann", "192.0.2.2", "known"))
	w.reports(r)
}

// TestReadyAlerts gives each ready-made alert an entry that it reports, and one that it
// does not.
func TestReadyAlerts(t *testing.T) {
	night := time.Date(2026, 11, 30, 23, 0, 0, 0, time.Local)
	destroyed := postern.Event{
		Kind: postern.EventLibvirtCall, Outcome: postern.OK, Object: "vm3", Time: night,
		Details: map[string]string{"procedure": "domainDestroy"},
	}
	by := func(e postern.Event, change func(*postern.Event)) postern.Event { change(&e); return e }
	check := func(kind string) [2]postern.Event {
		e := postern.Event{Kind: kind, Outcome: postern.Failed, Object: "x"}
		return [2]postern.Event{e, by(e, func(e *postern.Event) { e.Outcome = postern.OK })}
	}
	signedIn := postern.Event{Kind: postern.EventSignedIn, Outcome: postern.OK, Person: "ann", Address: "192.0.2.9"}
	events := map[string][2]postern.Event{
		"new-address":   {signedIn, by(signedIn, func(e *postern.Event) { e.Address = "192.0.2.1" })},
		"refusal-flood": {refused("/", 100), refused("/", 99)},
		"machine-destroyed-at-night": {
			destroyed, by(destroyed, func(e *postern.Event) { e.Time = night.Add(-10 * time.Hour) }),
		},
		"audit-finding": check(postern.EventCheckSSH), "ca-ending": check(postern.EventCheckCA),
		"host-problem": check(postern.EventCheckHost),
		"agent-silent": check(postern.EventCheckAgent), "timeline-damaged": check(postern.EventCheckTimeline),
		"timeline-forked": check(postern.EventCheckWitness), "disk-filling": check(postern.EventCheckDisk),
		"codes-refused": check(postern.EventCheckCodes),
	}
	for _, ready := range alert.Ready {
		t.Run(ready.Name, func(t *testing.T) {
			w := newWorld(t)
			w.now = night.Add(time.Minute)
			w.append(by(signedIn, func(e *postern.Event) { e.Address = "192.0.2.1" }))
			r := w.reporter(alert.Alert{Name: ready.Name})
			pair, ok := events[ready.Name]
			if !ok {
				t.Fatal("no entry is known that it reports")
			}
			w.append(pair[1])
			w.reports(r)
			w.now = w.now.Add(2 * time.Minute)
			w.append(pair[0])
			if err := errors.Join(r.Read(t.Context()), r.Deliver(t.Context())); err != nil {
				t.Fatal(err)
			}
			if got := w.hook.take(); len(got) != 1 {
				t.Errorf("%q were reported", got)
			}
		})
	}
}

// failing is a store that loses what alerts conclude, as a process that is killed.
type failing struct {
	alert.Store
	times int
}

func (f *failing) AdvanceAlerts(ctx context.Context, p alert.Progress, queue []alert.Message) error {
	if f.times--; f.times >= 0 {
		return errors.New("killed")
	}
	return f.Store.AdvanceAlerts(ctx, p, queue)
}

func TestNothingIsMissedByAReporterThatWasKilled(t *testing.T) {
	w := newWorld(t)
	w.store = &failing{w.db.Alerts(), 1}
	all := alert.Alert{Name: "all", When: `event.kind == "gate.refused"`, Every: time.Nanosecond}
	w.append(refused("/1", 0))
	if err := w.reporter(all).Read(t.Context()); err == nil {
		t.Fatal("the store did not fail")
	}
	w.reports(w.reporter(all), "all /1 1")
}

// TestServersReportOnce runs reporters of several servers over one database.
func TestServersReportOnce(t *testing.T) {
	w := newWorld(t)
	var events []postern.Event
	for i := range 200 {
		events = append(events, refused(fmt.Sprint("/", i), 0))
	}
	var reporting sync.WaitGroup
	for range 4 {
		r := w.reporter(alert.Alert{Name: "all", When: `event.kind == "gate.refused"`, Every: time.Nanosecond})
		reporting.Go(func() {
			for range 20 {
				w.append(events[0])
				if err := errors.Join(r.Read(t.Context()), r.Deliver(t.Context())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	reporting.Wait()
	r := w.reporter(alert.Alert{Name: "all", When: `event.kind == "gate.refused"`, Every: time.Nanosecond})
	w.now = w.now.Add(time.Second) // the pause after the last message ends
	for waiting := int64(1); waiting > 0; w.now = w.now.Add(alert.LastTry) {
		err := errors.Join(r.Read(t.Context()), r.Deliver(t.Context()))
		if err == nil {
			waiting, err = w.db.Alerts().Queued(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	ids, sum := map[string]bool{}, int64(0)
	for _, g := range w.hook.got {
		if !ids[g.ID] {
			sum += g.Count
		}
		ids[g.ID] = true
	}
	if sum != 80 {
		t.Errorf("%d entries were reported, not 80", sum)
	}
}

// TestUnavailableReceiverGetsItLater closes the receiver while something is reported.
func TestUnavailableReceiverGetsItLater(t *testing.T) {
	w := newWorld(t)
	down := true
	handler := w.hook.Config.Handler
	w.hook.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if down {
			http.Error(rw, "later", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(rw, r)
	})
	r := w.reporter(alert.Alert{Name: "all", When: `event.kind == "gate.refused"`})
	w.append(refused("/1", 0))
	for range 5 {
		w.reports(r)
		w.now = w.now.Add(time.Minute)
	}
	down = false
	w.reports(r, "all /1 1")
	w.now = w.now.Add(2 * time.Hour)
	w.reports(r)

	// One that stays unavailable is given up, and the timeline says so.
	down = true
	w.append(refused("/2", 0))
	w.reports(r)
	w.now = w.now.Add(73 * time.Hour)
	w.reports(r)
	lost, err := w.db.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventAlertSent})
	if err != nil || len(lost) != 1 || lost[0].Outcome != postern.Failed || lost[0].Object != "all" ||
		!strings.Contains(lost[0].Reason, "503") {
		t.Errorf("%+v %v", lost, err)
	}
	if n, err := w.db.Alerts().Queued(t.Context()); n != 0 || err != nil {
		t.Errorf("%d messages wait: %v", n, err)
	}
}

// TestClockThatWasAheadHoldsNothingBack has the clock a month ahead for a moment.
func TestClockThatWasAheadHoldsNothingBack(t *testing.T) {
	w := newWorld(t)
	up := false
	handler := w.hook.Config.Handler
	w.hook.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !up {
			http.Error(rw, "later", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(rw, r)
	})
	each := alert.Alert{Name: "each", When: `event.kind == "gate.refused"`}
	flood := alert.Alert{
		Name: "flood", When: `event.kind == "gate.refused" && event.object == "/flood"`, Count: 10, Within: time.Minute,
	}
	r := w.reporter(each, flood)
	right := w.now
	w.now = right.AddDate(0, 1, 0)
	w.append(refused("/ahead", 0), refused("/flood", 9))
	w.reports(r) // the receiver is unavailable, so it is tried again
	w.now, up = right, true
	w.reports(r, "each /ahead 1", "each /flood 9")
	w.append(refused("/flood", 1))
	w.reports(r) // neither a flood within a minute, nor long enough after the last
	w.now = w.now.Add(alert.DefaultEvery)
	w.reports(r, "each /flood 1")
}

// TestReceiverThatDoesNotAnswerHoldsUpNoOther has a receiver that accepts and does not
// answer while another gets one message after the other.
func TestReceiverThatDoesNotAnswerHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	asked, over := make(chan struct{}, 100), make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-over
	}))
	defer silent.Close()
	defer close(over)
	r, err := alert.New(alert.Config{
		Alerts: []alert.Alert{{
			Name: "all", When: `event.kind == "gate.refused"`, Every: time.Nanosecond, To: []alert.Receiver{
				{Webhook: &webhook.Webhook{URL: silent.URL, Secret: w.hook.secret}}, w.hook.to(),
			},
		}},
		Store: w.db.Alerts(), Log: slog.New(slog.DiscardHandler),
		Sentence: func(_ context.Context, e postern.Event) string { return timeline.Sentence(e, nil) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer running.Wait()
	defer stop()
	for i := range 3 {
		w.append(refused(fmt.Sprint("/", i), 0))
		for got := w.hook.take(); len(got) == 0; got = w.hook.take() {
			time.Sleep(10 * time.Millisecond)
		}
		<-asked
	}
	waiting, err := w.db.Alerts().DueAlerts(t.Context(), time.Now().AddDate(1, 0, 0), 10, time.Minute)
	if err != nil || len(waiting) != 3 {
		t.Errorf("%d messages wait for the silent receiver: %v", len(waiting), err)
	}
	for _, m := range waiting {
		if m.Tries != 0 {
			t.Errorf("a try ended first: %+v", m)
		}
	}
}

func TestWrongAlertsAreRefused(t *testing.T) {
	secret := newReceiver(t).secret
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	to := []alert.Receiver{{Command: []string{"/bin/true"}}}
	hook := func(url, secret string) []alert.Receiver {
		return []alert.Receiver{{Webhook: &webhook.Webhook{URL: url, Secret: secret}}}
	}
	for what, a := range map[string]alert.Alert{
		"no such ready-made alert":   {Name: "other", To: to},
		"no name":                    {Name: "a b", When: "true", To: to},
		"no receiver":                {Name: "ca-ending"},
		"no expression":              {Name: "x", When: "event.", To: to},
		"no such field":              {Name: "x", When: `event.who == "ann"`, To: to},
		"not true or false":          {Name: "x", When: "event.count", To: to},
		"a count without a time":     {Name: "x", When: "true", Count: 3, To: to},
		"a relative command":         {Name: "ca-ending", To: []alert.Receiver{{Command: []string{"true"}}}},
		"no address":                 {Name: "ca-ending", To: []alert.Receiver{{Mail: "ops"}}},
		"a mail and no mail server":  {Name: "ca-ending", To: []alert.Receiver{{Mail: "ops@example.com"}}},
		"a webhook that is no URL":   {Name: "ca-ending", To: hook("hooks.example.com", secret)},
		"a webhook without a secret": {Name: "ca-ending", To: hook("https://hooks.example.com/", secret+".missing")},
		"a secret that is too short": {Name: "ca-ending", To: hook("https://hooks.example.com/", short)},
	} {
		if _, err := alert.New(alert.Config{Alerts: []alert.Alert{a}}); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := alert.New(alert.Config{Alerts: []alert.Alert{{Name: "ca-ending", To: to}}}); err != nil {
		t.Error(err)
	}
}

// TestExpressionsReadTheEntry evaluates expressions over one entry.
func TestExpressionsReadTheEntry(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 30, 0, 0, time.UTC)
	e := postern.Event{
		Time: at, Kind: postern.EventAccessRefused, Outcome: postern.Refused, Person: "ann", Address: "192.0.2.7",
		Object: "/wp-admin", Reason: "revoked", Count: 3, Took: 2 * time.Second, Host: "hv1",
		Links:   []postern.Link{{Kind: "x509", ID: "4711"}},
		Details: map[string]string{"last": "x"},
	}
	w := newWorld(t)
	w.now = at
	for expression, want := range map[string]bool{
		`event.person == "ann" && event.host == "hv1" && event.reason == "revoked"`: true,
		`event.outcome == "refused"`:                                          true,
		`event.count > 2 && event.took >= duration("2s")`:                     true,
		`event.time.getHours("Europe/Berlin") == 0`:                           true,
		fmt.Sprintf(`hour == %d`, at.In(time.Local).Hour()):                   true,
		`event.links.exists(l, l.kind == "x509" && l.id == "4711")`:           true,
		`event.links.exists(l, l.kind == "yubikey")`:                          false,
		`event.details.last == "x" && !has(event.details.first)`:              true,
		`event.details.first == "x"`:                                          false, // there is none
		`event.kind == "x" && event.details.first == "x"`:                     false,
		`event.address.within("192.0.2.0/24")`:                                true,
		`event.address.within(["10.0.0.0/8", "192.0.2.7"])`:                   true,
		`event.address.within(["10.0.0.0/8", "192.0.2.8"])`:                   false,
		`event.object.within("192.0.2.0/24")`:                                 false, // it is no address
		`event.object.matches("^/wp-") && event.object.lowerAscii() != "/WP"`: true,
	} {
		w.now = w.now.Add(2 * time.Hour)
		r := w.reporter(alert.Alert{Name: "x", When: expression})
		w.append(e)
		if want {
			w.reports(r, "x /wp-admin 3")
		} else {
			w.reports(r)
		}
		if t.Failed() {
			t.Fatal(expression)
		}
	}
}
