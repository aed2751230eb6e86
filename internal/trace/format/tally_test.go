package format

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
)

func reply(kind event.Kind, took, service time.Duration, domain string) *event.Event {
	return &event.Event{
		Kind: kind, Prog: 0x20008086, Proc: 1, Type: 1, Took: took,
		Call: &event.Call{End: 1, Service: service, Domain: domain},
	}
}

func TestQuantilesAreNear(t *testing.T) {
	tally, err := NewTally(ByProcedure)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for range 10000 {
		d := time.Duration(1000 + r.ExpFloat64()*1e7)
		all = append(all, d)
		_ = tally.Event(reply(event.ServerTx, d, d, ""))
	}
	slices.Sort(all)
	row := tally.Rows("time")[0]
	for _, share := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := all[int(share*10000)-1]
		if got := row.Quantile(share); got < want || float64(got) > 1.1*float64(want) {
			t.Errorf("%v of the calls: %v, want %v", share, got, want)
		}
	}
}

func TestTallyCountsEachCallOnce(t *testing.T) {
	tally, _ := NewTally(ByDomain)
	_ = tally.Event(reply(event.ServerTx, 5, 4, "vm1"))
	_ = tally.Event(reply(event.ClientRx, 9, 4, "vm1")) // the same, at its client
	_ = tally.Event(reply(event.ClientRx, 9, 0, "vm2")) // of a daemon elsewhere
	_ = tally.Event(&event.Event{Kind: event.ServerTx, Type: 2})
	_ = tally.Event(&event.Event{Kind: event.Lost, Args: []uint64{3}})
	rows := tally.Rows("name")
	if len(rows) != 2 || rows[0].Name != "vm1" || rows[0].Calls != 1 || rows[1].Calls != 1 || tally.Lost() != 3 {
		t.Errorf("%+v, lost %d", rows, tally.Lost())
	}
}

func TestTallyIsBounded(t *testing.T) {
	tally, _ := NewTally(ByDomain)
	for i := range 2 * maxRows {
		_ = tally.Event(reply(event.ServerTx, 5, 4, fmt.Sprint("vm", i)))
	}
	rows := tally.Rows("calls")
	if len(rows) != maxRows+1 || rows[0].Name != others || rows[0].Calls != maxRows {
		t.Errorf("%d rows, the first %+v", len(rows), rows[0])
	}
}

func TestTallyByNothingKnown(t *testing.T) {
	if _, err := NewTally("colour"); postern.CodeOf(err) != postern.Invalid {
		t.Error(err)
	}
}
