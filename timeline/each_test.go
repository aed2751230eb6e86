package timeline

import (
	"context"
	"testing"

	"github.com/postern-project/postern"
)

// counted is a source of so many events.
type counted int64

func (c counted) Events(_ context.Context, f Filter) (events []postern.Event, _ error) {
	for i := f.From; i < int64(c) && len(events) < f.Limit; i++ {
		events = append(events, postern.Event{Index: i})
	}
	return events, nil
}

func TestEachEventComesOnce(t *testing.T) {
	for _, n := range []int64{0, 1, eachPage - 1, eachPage, eachPage + 1, 3 * eachPage} {
		next := int64(0)
		err := Each(t.Context(), counted(n), Filter{Limit: 3, Last: true}, func(events []postern.Event) error {
			if len(events) > eachPage {
				t.Errorf("%d events at once", len(events))
			}
			for _, e := range events {
				if e.Index != next {
					t.Fatalf("event %d comes after %d", e.Index, next-1)
				}
				next++
			}
			return nil
		})
		if err != nil || next != n {
			t.Errorf("%d of %d events: %v", next, n, err)
		}
	}
}
