package timeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// growing is a log that has one entry more at each look, of which one is written while
// its entries are read.
type growing struct {
	size  int64
	fails map[int]error // by the number of the look, from 1
	looks int
}

func (g *growing) LogSize(context.Context) (int64, error) {
	g.looks++
	if err := g.fails[g.looks]; err != nil {
		return 0, err
	}
	g.size++
	return g.size, nil
}

func (g *growing) Events(_ context.Context, f Filter) ([]postern.Event, error) {
	g.size++
	var all []postern.Event
	for i := f.From; i < g.size; i++ {
		if e := (postern.Event{Index: i, Kind: "a"}); f.Match(e) {
			all = append(all, e)
		}
	}
	if f.Last {
		all = all[max(0, len(all)-f.Limit):]
	}
	return all, nil
}

// follow follows a log until it has handed over so many entries.
func follow(t *testing.T, g *growing, f Filter, n int) (indexes []int64, unavailable int, err error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err = Follower{
		Source: g, Filter: f, Interval: time.Millisecond,
		Entries: func(events []postern.Event) error {
			for _, e := range events {
				indexes = append(indexes, e.Index)
			}
			if len(indexes) >= n {
				stop()
			}
			return nil
		},
		Unavailable: func(error) { unavailable++ },
	}.Follow(ctx)
	if !errors.Is(ctx.Err(), context.Canceled) && err == nil {
		t.Error("it did not end")
	}
	return indexes, unavailable, err
}

func TestEachEntryIsFollowedOnce(t *testing.T) {
	for _, c := range []struct {
		limit int
		first int64
	}{{0, 10}, {3, 8}} { // at the first look there are ten, at the second eleven
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			got, unavailable, err := follow(t, &growing{size: 9}, Filter{Limit: c.limit}, 20)
			if err != nil || unavailable > 0 {
				t.Fatalf("%v, %d times unavailable", err, unavailable)
			}
			for i, index := range got {
				if index != c.first+int64(i) {
					t.Fatalf("got %v", got)
				}
			}
		})
	}
}

func TestAnUnavailableLogIsWaitedFor(t *testing.T) {
	gone := postern.Errorf(postern.Unavailable, "no database")
	g := &growing{fails: map[int]error{2: gone, 3: gone, 4: gone, 7: gone}}
	got, unavailable, err := follow(t, g, Filter{}, 6)
	if err != nil || unavailable != 2 {
		t.Errorf("%v, %d times unavailable, not 2", err, unavailable)
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("got %v", got)
	}
}

func TestFollowingEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	for _, look := range []int{1, 3} {
		t.Run(fmt.Sprint(look), func(t *testing.T) {
			if _, _, err := follow(t, &growing{fails: map[int]error{look: broken}}, Filter{}, 99); !errors.Is(err,
				broken) {
				t.Errorf("ended with %v", err)
			}
		})
	}
	err := Follower{
		Source: &growing{}, Filter: Filter{Limit: 1}, Interval: time.Millisecond,
		Entries: func([]postern.Event) error { return broken },
	}.Follow(t.Context())
	if !errors.Is(err, broken) {
		t.Errorf("an error of the reader: %v", err)
	}
}
