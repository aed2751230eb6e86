package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-project/postern"
)

// ledger is a timeline that can be unavailable.
type ledger struct {
	mu     sync.Mutex
	err    error
	events []postern.Event
}

func (l *ledger) append(_ context.Context, events ...postern.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.events = append(l.events, events...)
	}
	return l.err
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// total returns how many events were written, and how many they count.
func (l *ledger) total() (written int, count int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		count += max(1, e.Count)
	}
	return len(l.events), count
}

func (l *ledger) want(t *testing.T, written int, count int64) {
	t.Helper()
	if w, c := l.total(); w != written || c != count {
		t.Errorf("%d events count %d, want %d that count %d", w, c, written, count)
	}
}

func refusal(i int) postern.Event {
	return postern.Event{
		Kind: postern.EventAccessRefused, Outcome: postern.Refused,
		Address: fmt.Sprintf("2001:db8::%x", i), Object: "/admin", Reason: "none-shown",
	}
}

func closed(t *testing.T, w *Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestFloodBecomesFewEventsAndHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := Start(Config{Append: l.append})
		w.Add(refusal(1))
		synctest.Wait()
		for range 999 {
			w.Add(refusal(1))
		}
		w.Add(refusal(2))
		synctest.Wait()
		l.want(t, 2, 2) // the first of each, at once
		time.Sleep(window + time.Second)
		synctest.Wait()
		l.want(t, 3, 1001)
		for range 3600 * 10 { // an hour of it
			w.Add(refusal(1))
			time.Sleep(100 * time.Millisecond)
		}
		closed(t, w)
		written, count := l.total()
		if written > 30 || count != 1001+36000 {
			t.Errorf("%d events count %d", written, count)
		}
		last := l.events[written-1]
		if at, err := time.Parse(time.RFC3339, last.Details[LastSeen]); err != nil || time.Since(at) > 2*time.Second ||
			at.Before(last.Time.Truncate(time.Second)) {
			t.Errorf("the newest event does not say when the last was: %+v", last)
		}
	})
}

func TestDifferentOnesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := Start(Config{Append: l.append})
		for i := range 5000 {
			w.Add(refusal(i))
		}
		if n := len(w.known); n > maxKinds+1 {
			t.Errorf("%d are kept", n)
		}
		closed(t, w)
		if written, count := l.total(); count != 5000 || written > maxKinds+10 {
			t.Errorf("%d events count %d", written, count)
		}
	})
}

func TestCountsAreKeptWhileTheTimelineIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{err: errors.New("unavailable")}
		failures := 0
		w := Start(Config{Append: l.append, Failed: func(error) { failures++ }})
		for i := range 100 {
			w.Add(refusal(i % 2))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if failures == 0 {
			t.Error("no failure was reported")
		}
		l.fail(nil)
		time.Sleep(2 * window)
		synctest.Wait()
		l.want(t, 2, 100)
		if l.events[0].Count != 50 || l.events[1].Count != 50 {
			t.Errorf("%+v", l.events)
		}
		l.fail(errors.New("unavailable"))
		w.Add(refusal(3))
		if err := w.Close(); err == nil {
			t.Error("what is lost at the end is not reported")
		}
	})
}

// TestWhatDiffers adds events that differ in one thing each.
func TestWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		w := Start(Config{Append: l.append, Also: func(e postern.Event) string { return e.Details["client"] }})
		same := refusal(1)
		same.Details = map[string]string{"account": "root"} // no difference
		different := []postern.Event{refusal(1), same}
		for range 8 {
			different = append(different, refusal(1))
		}
		different[2].Kind = postern.EventOTP
		different[3].Outcome = postern.Failed
		different[4].Host = "h"
		different[5].Person = "dan"
		different[6].Object = "/"
		different[7].Reason = "revoked"
		different[8].Links = []postern.Link{{Kind: postern.LinkDomain, ID: "d"}}
		different[9].Details = map[string]string{"client": "7"}
		l.fail(errors.New("unavailable")) // all are there before the first is written
		for _, e := range different {
			w.Add(e)
		}
		l.fail(nil)
		closed(t, w)
		l.want(t, 9, 10)
	})
}

// TestWhatCannotBeWrittenIsCounted counts what waits in all writers whose writes fail.
func TestWhatCannotBeWrittenIsCounted(t *testing.T) {
	before := Unwritten()
	var broken atomic.Bool
	broken.Store(true)
	writer := func() *Writer {
		return Start(Config{Append: func(context.Context, ...postern.Event) error {
			if broken.Load() {
				return errors.New("the disk is full")
			}
			return nil
		}})
	}
	a, b := writer(), writer()
	for range 3 {
		a.Add(postern.Event{Kind: postern.EventAccessRefused})
	}
	b.Add(postern.Event{Kind: postern.EventOTP, Count: 7})
	if err := errors.Join(a.Flush(), b.Flush()); err == nil {
		t.Fatal("the writes did not fail")
	}
	if n := Unwritten() - before; n != 10 || a.Unwritten() != 3 || b.Unwritten() != 7 {
		t.Errorf("%d events wait, %d and %d", n, a.Unwritten(), b.Unwritten())
	}
	if err := a.Close(); err == nil || a.Unwritten() != 3 {
		t.Errorf("%d events are lost: %v", a.Unwritten(), err)
	}
	broken.Store(false)
	if err := b.Close(); err != nil || b.Unwritten() != 0 {
		t.Errorf("%d events are lost: %v", b.Unwritten(), err)
	}
	if n := Unwritten() - before; n != 0 {
		t.Errorf("%d events wait in writers that are closed", n)
	}
}
