package otp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-project/postern"
)

// ledger is a timeline that can be away.
type ledger struct {
	mu     sync.Mutex
	away   bool
	events []postern.Event
}

func (l *ledger) Append(_ context.Context, events ...postern.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return errors.New("away")
	}
	l.events = append(l.events, events...)
	return nil
}

func (l *ledger) total() (lines int, count int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		count += max(1, e.Count)
	}
	return len(l.events), count
}

func refusal(reason, address string) postern.Event {
	return postern.Event{Kind: postern.EventOTP, Outcome: postern.Refused, Reason: reason, Address: address}
}

func TestFloodBecomesFewLinesAndHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		j := newJournal(l, time.Now, slog.New(slog.DiscardHandler))
		for range 1000 {
			j.record(refusal("unknown key", "192.0.2.1"))
		}
		j.record(refusal("unknown key", "192.0.2.2"))
		synctest.Wait()
		if lines, _ := l.total(); lines != 2 {
			t.Errorf("at once there are %d lines, want the first of each sort", lines)
		}
		time.Sleep(journalWindow + time.Second) // the fake clock's
		synctest.Wait()
		if lines, count := l.total(); lines != 3 || count != 1001 {
			t.Errorf("%d lines count %d, want 3 and 1001", lines, count)
		}
		// So many sorts that they are not told apart any more.
		for i := range 5000 {
			j.record(refusal("unknown key", fmt.Sprintf("2001:db8::%x", i)))
		}
		j.close()
		if lines, count := l.total(); count != 6001 || lines > journalBuckets+10 {
			t.Errorf("%d lines count %d, want 6001 in at most %d", lines, count, journalBuckets+10)
		}
	})
}

func TestRefusalsWaitForATimelineThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{away: true}
		j := newJournal(l, time.Now, slog.New(slog.DiscardHandler))
		for i := range 10 {
			j.record(refusal(fmt.Sprint("reason ", i), ""))
		}
		synctest.Wait()
		l.mu.Lock()
		l.away = false
		l.mu.Unlock()
		time.Sleep(2 * journalWindow)
		synctest.Wait()
		if _, count := l.total(); count != 10 {
			t.Errorf("%d of 10 refusals are on the timeline", count)
		}
		j.close()
	})
}
