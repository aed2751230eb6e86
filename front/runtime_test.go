package front

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestAgesAreCountedOnAClockThatDoesNotJump holds that what is known of the
// store is dated from the program's start, not by the time of day.
func TestAgesAreCountedOnAClockThatDoesNotJump(t *testing.T) {
	l := &live{Runtime: Runtime{Generation: func(context.Context) (int64, error) { return 1, nil }}}
	begun := time.Now()
	l.poll(t.Context())
	if age := time.Duration(l.asked.Load()); age < begun.Sub(started) || age > time.Since(started) {
		t.Errorf("asked %v after the start", age)
	}
	if !l.fresh(begun) || l.fresh(begun.Add(staleAfter+time.Second)) {
		t.Error("what was asked just now is stale, or never will be")
	}
}

// TestNothingIsKnownBeforeTheFirstAnswer starts while the store is away.
func TestNothingIsKnownBeforeTheFirstAnswer(t *testing.T) {
	away := errors.New("away")
	t.Cleanup(Use(Runtime{Generation: func(context.Context) (int64, error) { return 0, away }}))
	if current().fresh(started) {
		t.Error("what was never asked counts as fresh")
	}
}
