// Package export sends the entries of a timeline to another system: in order, each at least
// once. How far it is stands in a file, the cursor, which moves when the receiver has
// acknowledged.
package export

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/webhook"
	"github.com/postern-project/postern/timeline"
)

// Source is the timeline.
type Source interface {
	timeline.Source
	// LogSize returns how many entries there are.
	LogSize(ctx context.Context) (int64, error)
}

// record is an entry, and the text that the receiver gets of it.
type record struct {
	event postern.Event
	text  []byte
}

// Options say what is sent where.
type Options struct {
	To     string // address: https://…, syslog+tls://HOST, syslog+unix:///dev/log, file:///PATH, …
	Format string // one of Formats; "" for JSON
	Cursor string // file that holds how far the export is
	From   int64  // index of the first entry, where there is no cursor yet
	Follow bool   // wait for new entries, and for a receiver or database that is unavailable

	Secret        string // of http: file with the key that signs what is sent
	Authorization string // of http: file with the value of that header
	TLS           TLS    // of syslog+tls
	Unencrypted   bool   // the network may read what is sent to another host
	Rotate        int64  // size at which a file is rotated, in bytes; 0 for never
	Keep          int    // how many older files there are then; 0 for 10
	Metrics       string // address at which numbers of the export are served to Prometheus; "" for nowhere

	// Wake ends a wait for new entries, or for what is unavailable.
	Wake <-chan os.Signal
	// Report gets a line when an outage begins, and when it has ended.
	Report func(text string)
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
	asked    = time.Hour // for a receiver that asks for it
)

// Run sends entries until all that there are were sent, or with Follow until ctx ends. No
// other Run may use the same cursor meanwhile: it fails with [postern.Conflict].
func Run(ctx context.Context, src Source, o Options) error {
	format, err := formatOf(o.Format, src)
	if err != nil {
		return err
	}
	to, err := open(o)
	if err != nil {
		return err
	}
	c, err := openCursor(o.Cursor, o.From)
	if err != nil {
		return err
	}
	defer c.close()
	x := exporter{src: src, format: format, to: to, cursor: c, metrics: newMetrics()}
	end, err := x.metrics.serve(o.Metrics, src)
	if err != nil {
		return err
	}
	defer end()
	x.metrics.show(c, nil)
	if err := x.run(ctx, o); ctx.Err() == nil || !o.Follow {
		return err
	}
	return nil
}

type exporter struct {
	src     Source
	format  format
	to      receiver
	cursor  *cursor
	metrics *metrics
	page    []record // read and not yet acknowledged
	sent    bool     // the first batch of page was acknowledged, and the cursor was not written
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
		if err != nil {
			x.metrics.failures.Inc()
		}
		if (err != nil) != unavailable && ctx.Err() == nil {
			unavailable = err != nil
			o.Report(outage(err))
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
		case <-o.Wake:
		case <-time.After(max(wait, askedFor(err))):
		}
		if err != nil {
			wait = min(2*wait, longest)
		}
	}
}

// outage says that an outage has begun, or with nil that it has ended.
func outage(err error) string {
	if err == nil {
		return "the export goes on"
	}
	return err.Error() + "; waiting for it"
}

// askedFor returns how long a receiver asks to be left alone.
func askedFor(err error) time.Duration {
	var status *webhook.StatusError
	if !errors.As(err, &status) {
		return 0
	}
	return min(status.RetryAfter, asked)
}

// step sends the next batch, and reports whether there was one.
func (x *exporter) step(ctx context.Context) (more bool, err error) {
	if len(x.page) == 0 {
		if x.page, err = x.read(ctx); err != nil || len(x.page) == 0 {
			return false, err
		}
		x.metrics.show(x.cursor, x.page)
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
	x.metrics.entries.Add(float64(len(batch)))
	x.metrics.show(x.cursor, x.page)
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
	case size < next && x.cursor.Time.IsZero():
		return nil, postern.Errorf(postern.Invalid, "the timeline has %d entries, none of the index %d", size, next).
			WithHint("begin with an index up to %d", size)
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
	return x.records(ctx, events, next)
}

// records writes events in the format, but for those before an index. There must be no gap.
func (x *exporter) records(ctx context.Context, events []postern.Event, next int64) (all []record, err error) {
	for _, e := range events {
		if e.Index < next {
			continue
		}
		if e.Index != next {
			return nil, postern.Errorf(postern.Conflict, "entry %d is not in the database", next).
				WithHint("verify the timeline; if older entries were archived, name the directory where the archive "+
					"is "+
					"now, or export from entry %d", e.Index)
		}
		text, err := x.format(ctx, e)
		if err != nil {
			return nil, err
		}
		all = append(all, record{e, text})
		next++
	}
	return all, nil
}
