// Package export sends the entries of a timeline to another system: in order, each at least
// once. How far it is stands in a file, the cursor, which moves when the receiver has
// acknowledged.
package export

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Source is the timeline.
type Source interface {
	timeline.Source
	// LogSize returns how many entries there are.
	LogSize(ctx context.Context) (int64, error)
}

// record is an entry, and its JSON as the receiver gets it.
type record struct {
	event postern.Event
	text  []byte
}

// receiver is where entries are sent to. send returns when the receiver has all of them;
// after an error, of which a part may have arrived, the same records are sent again.
type receiver interface {
	send(ctx context.Context, records []record) error
}

// Options say what is sent where.
type Options struct {
	To     string // address: https://…, syslog+tcp://HOST:PORT
	Secret string // file with the key that signs what is sent by HTTP
	Cursor string // file that holds how far the export is
	From   int64  // index of the first entry, where there is no cursor yet
	Follow bool   // wait for new entries, and for a receiver or database that is unavailable
	// Report is called with the error when an outage begins, and with nil when it has ended.
	Report func(error)
}

// Bounds of what is read at once, and of what is sent at once.
const (
	pageEntries = 256
	batchBytes  = 512 << 10 // and at least one entry
)

// How often new entries are looked for, and a receiver is tried again.
const (
	interval = time.Second
	longest  = time.Minute
)

// Run sends entries until all that there are were sent, or with Follow until ctx ends. No
// other Run may use the same cursor meanwhile: it fails with [postern.Conflict].
func Run(ctx context.Context, src Source, o Options) error {
	to, err := open(o)
	if err != nil {
		return err
	}
	c, err := openCursor(o.Cursor, o.From)
	if err != nil {
		return err
	}
	defer c.close()
	x := exporter{src: src, to: to, cursor: c}
	if err := x.run(ctx, o); ctx.Err() == nil || !o.Follow {
		return err
	}
	return nil
}

type exporter struct {
	src    Source
	to     receiver
	cursor *cursor
	page   []record // read and not yet acknowledged
	sent   bool     // the first batch of page was acknowledged, and the cursor was not written
}

func (x *exporter) run(ctx context.Context, o Options) error {
	wait, unavailable := interval, false
	for {
		more, err := x.step(ctx)
		switch {
		case err != nil && !(o.Follow && postern.CodeOf(err) == postern.Unavailable):
			return err
		case err == nil && !more && !o.Follow:
			return nil
		}
		if (err != nil) != unavailable && ctx.Err() == nil {
			unavailable = err != nil
			o.Report(err)
		}
		if err == nil {
			wait = interval
			if more {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		if err != nil {
			wait = min(2*wait, longest)
		}
	}
}

// step sends the next batch, and reports whether there was one.
func (x *exporter) step(ctx context.Context) (more bool, err error) {
	if len(x.page) == 0 {
		if x.page, err = x.read(ctx); err != nil || len(x.page) == 0 {
			return false, err
		}
	}
	batch := x.page[:fitting(x.page)]
	if !x.sent {
		if err := x.to.send(ctx, batch); err != nil {
			return false, err
		}
		x.sent = true
	}
	if err := x.cursor.advance(batch[len(batch)-1].event); err != nil {
		return false, err
	}
	x.page, x.sent = x.page[len(batch):], false
	return true, nil
}

// fitting returns how many of the records are sent at once.
func fitting(records []record) (n int) {
	bytes := 0
	for _, r := range records {
		if bytes += len(r.text) + 1; bytes > batchBytes && n > 0 {
			break
		}
		n++
	}
	return n
}

// read reads the entries that follow the cursor. It fails if they are not those that
// followed when the cursor was written: the timeline is shorter, or another.
func (x *exporter) read(ctx context.Context) ([]record, error) {
	next := x.cursor.Next
	size, err := x.src.LogSize(ctx)
	switch {
	case err != nil:
		return nil, err
	case size < next:
		return nil, postern.Errorf(postern.Conflict,
			"the timeline has %d entries, and %d were exported: it was restored, or is another", size, next).
			WithHint("export to a new cursor file, from the entry that the receiver should have next")
	}
	from := max(next-1, 0) // the last that was exported is compared
	events, err := x.src.Events(ctx, timeline.Filter{From: from, Limit: pageEntries})
	if err != nil {
		return nil, err
	}
	if next > 0 && !x.cursor.Time.IsZero() {
		if len(events) == 0 || events[0].Index != from || !events[0].Time.Equal(x.cursor.Time) {
			return nil, postern.Errorf(postern.Conflict,
				"entry %d is not the one that was exported: the timeline was restored, or is another, "+
					"or the entry was archived", from).
				WithHint("export to a new cursor file, from the entry that the receiver should have next")
		}
	}
	return records(events, next)
}

// records writes events as JSON, but for those before an index. There must be no gap.
func records(events []postern.Event, next int64) (all []record, err error) {
	for _, e := range events {
		if e.Index < next {
			continue
		}
		if e.Index != next {
			return nil, postern.Errorf(postern.Conflict, "entry %d is not in the database", next).
				WithHint("verify the timeline; if older entries were archived, export from entry %d", e.Index)
		}
		text, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		all = append(all, record{e, text})
		next++
	}
	return all, nil
}
