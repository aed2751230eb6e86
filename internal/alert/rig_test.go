package alert_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/alert"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/internal/webhook"
	"github.com/postern-project/postern/timeline"
)

// receiver is an HTTP receiver that checks signatures, and keeps what it gets.
type receiver struct {
	*httptest.Server
	secret string // its file

	mu  sync.Mutex
	got []got
}

type got struct {
	ID, Alert, Text string
	Count           int64
	Event           postern.Event
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	const key = "0123456789abcdef"
	r := &receiver{secret: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(r.secret, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		id, at := req.Header.Get("Webhook-Id"), req.Header.Get("Webhook-Timestamp")
		if want := "v1," + webhook.Sign([]byte(key), id, at, body); req.Header.Get("Webhook-Signature") != want {
			t.Error("the signature is not that of the message")
		}
		var g got
		if err := json.Unmarshal(body, &g); err != nil || g.ID != id {
			t.Errorf("%s: %v", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, g)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) to() alert.Receiver {
	return alert.Receiver{Webhook: &webhook.Webhook{URL: r.URL, Secret: r.secret}}
}

// take returns what came, as "alert object count", sorted, and forgets it.
func (r *receiver) take() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.got {
		list = append(list, fmt.Sprint(g.Alert, " ", g.Event.Object, " ", g.Count))
	}
	r.got = nil
	slices.Sort(list)
	return list
}

// world is a store, a receiver and a clock.
type world struct {
	t     *testing.T
	db    *store.DB
	hook  *receiver
	now   time.Time
	store alert.Store // nil: db's
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, db: storetest.Open(t), hook: newReceiver(t), now: time.Now()}
	if err := w.db.Alerts().StartAlerts(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// reporter returns a reporter of alerts to the receiver.
func (w *world) reporter(alerts ...alert.Alert) *alert.Reporter {
	w.t.Helper()
	for i := range alerts {
		alerts[i].To = []alert.Receiver{w.hook.to()}
	}
	c := alert.Config{
		Alerts: alerts, Store: w.db.Alerts(), Log: slog.New(slog.DiscardHandler),
		Now:      func() time.Time { return w.now },
		Sentence: func(_ context.Context, e postern.Event) string { return timeline.Sentence(e, nil) },
	}
	if w.store != nil {
		c.Store = w.store
	}
	r, err := alert.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) append(events ...postern.Event) {
	w.t.Helper()
	for i := range events {
		if events[i].Time.IsZero() {
			events[i].Time = w.now
		}
	}
	if err := w.db.Append(w.t.Context(), events...); err != nil {
		w.t.Fatal(err)
	}
}

// reports reads and delivers, and fails unless these messages come.
func (w *world) reports(r *alert.Reporter, want ...string) {
	w.t.Helper()
	if err := errors.Join(r.Read(w.t.Context()), r.Deliver(w.t.Context())); err != nil {
		w.t.Fatal(err)
	}
	if got := w.hook.take(); fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("reported %q, not %q", got, want)
	}
}

func refused(object string, count int64) postern.Event {
	return postern.Event{
		Kind: postern.EventAccessRefused, Outcome: postern.Refused, Object: object, Count: count, Address: "192.0.2.7",
	}
}
