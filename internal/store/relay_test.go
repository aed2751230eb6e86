package store_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/timeline"
)

// relayedOnce gives both servers the same batches at once, and then one with a
// gap.
func relayedOnce(t *testing.T, open opener) {
	a, b := open(t), open(t)
	var batch []relay.Numbered
	for seq := range int64(20) {
		batch = append(batch, relay.Numbered{
			Seq: seq + 1, Event: postern.Event{Kind: postern.EventLibvirtCall, Object: fmt.Sprint(seq + 1)},
		})
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			db := a
			if i%2 == 1 {
				db = b
			}
			if seq, err := db.Relay().Relay(t.Context(), "host:hv1", "agent", batch[:5+2*i]); err != nil ||
				seq < int64(5+2*i) {
				t.Errorf("up to %d: %v", seq, err)
			}
		})
	}
	wg.Wait()
	late := relay.Numbered{Seq: 30, Event: postern.Event{Kind: postern.EventLibvirtCall, Object: "30"}}
	for range 2 {
		if seq, err := b.Relay().Relay(t.Context(), "host:hv1", "agent", []relay.Numbered{
			batch[18],
			late,
		}); err != nil || seq != 30 {
			t.Errorf("up to %d: %v", seq, err)
		}
	}
	// More agents of a source than are remembered, and the last of them again.
	for i := range 100 {
		if _, err := a.Relay().Relay(t.Context(), "host:hv2", fmt.Sprint("agent", i), []relay.Numbered{{
			Seq:   1,
			Event: postern.Event{Kind: postern.EventAgentStarted},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	if seq, err := b.Relay().Relay(t.Context(), "host:hv1", "agent", []relay.Numbered{late}); err != nil || seq != 30 {
		t.Errorf("one source's agents make another's be forgotten: up to %d: %v", seq, err)
	}
	events, err := a.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventLibvirtCall})
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, e := range events {
		got = append(got, e.Object)
	}
	for i := range 19 {
		want = append(want, fmt.Sprint(i+1))
	}
	if want = append(want, "30"); !slices.Equal(got, want) {
		t.Errorf("the timeline has %q, want %q", got, want)
	}
	lost, err := a.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventAgentLost})
	if err != nil || len(lost) != 1 || lost[0].Count != 10 {
		t.Errorf("lost: %+v %v", lost, err)
	}
}
