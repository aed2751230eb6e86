package bench

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
)

// The timeline, appended to in batches, against plain INSERTs of the same rows
// in transactions of the same size, on the same database, as durable. Rounds of
// the two alternate, so that both meet the same machine.
const (
	appendBatch = 100
	appendEach  = 20 // batches a round
)

func BenchmarkTimelineAppend(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) {
		benchmarkAppend(b, filepath.Join(b.TempDir(), "postern.db"))
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		benchmarkAppend(b, posterntest.StartPostgreSQL(b).Database())
	})
}

func benchmarkAppend(b *testing.B, url string) {
	db := storetest.OpenConfig(b, store.Config{URL: url})
	ctx := context.Background()
	must(b, db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `CREATE TABLE plain_events (idx BIGINT PRIMARY KEY, time BIGINT NOT NULL,
			kind TEXT NOT NULL, outcome TEXT NOT NULL,
			person TEXT NOT NULL, address TEXT NOT NULL, object TEXT NOT NULL, line TEXT NOT NULL)`)
		if err == nil {
			_, err = tx.Exec(ctx, `CREATE INDEX plain_events_person ON plain_events (person, idx)`)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `CREATE TABLE plain_links (kind TEXT NOT NULL, id TEXT NOT NULL,
				idx BIGINT NOT NULL, PRIMARY KEY (kind, id, idx))`)
		}
		return err
	}))
	b.ResetTimer()
	next := int64(0)
	plain, appended := meter(0), meter(0)
	for b.Loop() {
		for range appendEach {
			events := sampleEvents(db, next)
			next += appendBatch
			plain.measure(func() { must(b, insertPlain(ctx, db, events)) })
			appended.measure(func() { must(b, db.Append(ctx, events...)) })
		}
	}
	rows := float64(next)
	b.ReportMetric(rows/plain.seconds(), "plain-rows/s")
	b.ReportMetric(rows/appended.seconds(), "appended-rows/s")
	b.ReportMetric(plain.seconds()/appended.seconds(), "ratio")
}

// meter adds up the time that something took.
type meter time.Duration

func (m *meter) measure(f func()) {
	start := time.Now()
	f()
	*m += meter(time.Since(start))
}

func (m meter) seconds() float64 { return time.Duration(m).Seconds() }

// sampleEvents are events as a busy HTTPS server writes them.
func sampleEvents(db *store.DB, from int64) []postern.Event {
	events := make([]postern.Event, appendBatch)
	for i := range events {
		n := from + int64(i)
		events[i] = timeline.Clean(postern.Event{
			Index: n, Time: db.Now(), Kind: postern.EventSignedIn, Outcome: postern.OK,
			Person: fmt.Sprintf("person%d", n%50), Address: fmt.Sprintf("192.0.2.%d", n%250),
			Object: fmt.Sprintf("/reports/%d", n),
			Links:  []postern.Link{{Kind: string(postern.X509Certificate), ID: fmt.Sprintf("%040x", n%50)}},
		})
	}
	return events
}

// insertPlain inserts the rows that the timeline would, without a tree.
func insertPlain(ctx context.Context, db *store.DB, events []postern.Event) error {
	return db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		for _, e := range events {
			line, err := timeline.Encode(e)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `INSERT INTO plain_events (idx, time, kind, outcome, person, address, object,
				line) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
				e.Index, e.Time.UnixMicro(), e.Kind, string(e.Outcome), e.Person, e.Address, e.Object,
				string(line)); err != nil {
				return err
			}
			for _, l := range e.Links {
				if _, err := tx.Exec(ctx, `INSERT INTO plain_links (kind, id, idx)
					VALUES ($1, $2, $3)`, l.Kind, l.ID, e.Index); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// BenchmarkStoreWrite measures small durable writes of many callers at once,
// and of one alone against the same statement by hand.
func BenchmarkStoreWrite(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("SQLite-%d", callers), func(b *testing.B) {
			benchmarkWrite(b, storetest.Open(b), callers)
		})
		b.Run(fmt.Sprintf("PostgreSQL-%d", callers), func(b *testing.B) {
			benchmarkWrite(b, storetest.OpenConfig(b, store.Config{URL: posterntest.StartPostgreSQL(b).Database()}),
				callers)
		})
	}
	b.Run("SQLite-by-hand", func(b *testing.B) {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "plain.db")+
			"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
		must(b, err)
		defer db.Close()
		db.SetMaxOpenConns(1)
		_, err = db.Exec(`CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)`)
		must(b, err)
		stmt, err := db.Prepare(upsert)
		must(b, err)
		n := 0
		for b.Loop() {
			n++
			_, err := stmt.Exec(fmt.Sprint("n", n%1000), n)
			must(b, err)
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "writes/s")
	})
}

const upsert = `INSERT INTO counters (name, value) VALUES ($1, $2) ON CONFLICT (name)
	DO UPDATE SET value = excluded.value`

func benchmarkWrite(b *testing.B, db *store.DB, callers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer() // starting the database does not count
	for range callers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				err := db.Write(context.Background(), func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.Exec(ctx, upsert, fmt.Sprint("n", n%1000), n)
					return err
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
