package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

const (
	maxBatch     = 512              // writes in one transaction
	batchTries   = 5                // runs of a batch that lost a race or its connection
	batchTimeout = 20 * time.Second // for one run, all waiting included
)

// request is one Write, waiting for its turn or its answer.
type request struct {
	ctx   context.Context
	f     func(ctx context.Context, tx *Tx) error
	began time.Time

	lookup *statement // that is run before f, if there is one

	mu      sync.Mutex
	state   requestState
	claimed chan struct{} // closed and replaced when a run of f ends
	err     error         // f's own
	panic   any           // what f panicked with
	done    chan struct{} // closed when the answer stands
}

type requestState int

const (
	waiting   requestState = iota // f is not running; the caller may leave
	running                       // f runs
	abandoned                     // the caller has left: f must not run again
)

// claim says that f is about to run, unless the caller has left.
func (r *request) claim() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == abandoned || r.ctx.Err() != nil {
		return false
	}
	r.state, r.claimed = running, make(chan struct{})
	return true
}

// release says that f has returned.
func (r *request) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = waiting
	close(r.claimed)
}

// abandon waits until f does not run and makes sure that it never will again.
func (r *request) abandon() {
	for {
		r.mu.Lock()
		if r.state != running {
			r.state = abandoned
			r.mu.Unlock()
			return
		}
		claimed := r.claimed
		r.mu.Unlock()
		<-claimed
	}
}

type writeKey struct{}

// Write runs f in a transaction and returns when what f did is durable. Many
// concurrent Writes share one transaction and one flush to disk, each behind a
// savepoint: an error of f undoes what this f did and nothing else, and is
// returned. f sees what every earlier Write did, on any server.
//
// f may be run again if the transaction is lost, and so must have no effects
// besides its statements and its results. It must not call Write.
//
// When ctx ends, Write returns with [postern.Unavailable]; if f has run by
// then, what it did may or may not become durable. When the database is unavailable,
// full or read-only, Write fails with [postern.Unavailable] and nothing was
// done, unless the connection was lost during the commit.
func (db *DB) Write(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	return db.writeAfter(ctx, nil, f)
}

// writeAfter is [DB.Write] for a function that begins with a query, which costs no round
// trip of its own. Of the writes that share a transaction one may do so.
func (db *DB) writeAfter(ctx context.Context, lookup *statement, f func(ctx context.Context, tx *Tx) error) error {
	if ctx.Value(writeKey{}) != nil {
		return postern.Errorf(postern.Internal, "Write was called inside a Write")
	}
	r := &request{ctx: ctx, f: f, lookup: lookup, began: time.Now(), done: make(chan struct{})}
	select {
	case db.queue <- r:
	case <-db.closed:
		return postern.Errorf(postern.Unavailable, "the database is closed")
	case <-ctx.Done():
		return db.wrap(ctx.Err(), "write to the database")
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		r.abandon()
		select {
		case <-r.done:
		default:
			return db.wrap(ctx.Err(), "write to the database")
		}
	}
	if r.panic != nil {
		panic(r.panic)
	}
	return db.wrap(r.err, "write to the database")
}

// writer is the one goroutine that writes. It takes what has gathered while
// the last batch became durable, and so adds no delay to a lone Write.
func (db *DB) writer() {
	defer close(db.done)
	w := &batchWriter{db: db}
	defer w.drop()
	for {
		select {
		case r := <-db.queue:
			w.serve(db.gather([]*request{r}))
		case <-db.closed:
			return
		}
	}
}

// gather adds what waits in the queue now to the batch, after those that are
// about to join it had their turn on the processor.
func (db *DB) gather(batch []*request) []*request {
	for before := 0; before < len(batch) && len(batch) < maxBatch; {
		before = len(batch)
		runtime.Gosched()
		batch = db.drain(batch)
	}
	return batch
}

// drain adds what waits in the queue now.
func (db *DB) drain(batch []*request) []*request {
	for len(batch) < maxBatch {
		select {
		case r := <-db.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// batchWriter runs batches on the writer's connection.
type batchWriter struct {
	db     *DB
	conn   *sql.Conn
	run    runner          // conn, with statements prepared once where the driver does not
	events []postern.Event // that the last batch appended to the timeline
}

// connect makes sure that there is a connection.
func (w *batchWriter) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.write.Conn(ctx)
	if err != nil {
		return err
	}
	w.conn, w.run = conn, conn
	if w.db.backend.cacheStatements() {
		w.run = &statements{conn: conn, kept: map[string]*sql.Stmt{}}
	}
	return nil
}

// drop closes the connection for good; the next batch gets a new one.
func (w *batchWriter) drop() {
	if w.conn == nil {
		return
	}
	if s, ok := w.run.(*statements); ok {
		s.close()
	}
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = w.conn.Close()
	w.conn, w.run = nil, nil
	w.db.tree = nil
}

// serve runs a batch and answers every request in it. A batch that fails as a
// whole, though the database is there, is run one request at a time, so that a
// request which breaks its transaction breaks only itself.
func (w *batchWriter) serve(batch []*request) {
	err := w.try(batch)
	var lost *commitError
	if err != nil && len(batch) > 1 && !errors.As(err, &lost) && !errors.Is(err, context.DeadlineExceeded) &&
		w.db.faultOf(err) == faultNone {
		for _, r := range batch {
			w.serve([]*request{r})
		}
		return
	}
	if errors.Is(err, context.DeadlineExceeded) { // the batch's own
		err = outage{err}
	}
	err = w.db.wrap(err, "write to the database")
	for _, r := range batch {
		if err != nil {
			r.err, r.panic = err, nil
		}
		close(r.done)
	}
	w.db.observe(batch, w.events, err)
}

// commitError is the failure of a commit, which may have happened all the same.
type commitError struct{ err error }

func (e *commitError) Error() string {
	return fmt.Sprintf("commit, which may have happened all the same: %v", e.err)
}
func (e *commitError) Unwrap() error { return e.err }

// try runs a batch, again if it was lost to another transaction or with its
// connection before the commit.
func (w *batchWriter) try(batch []*request) error {
	for n := 1; ; n++ {
		err := w.once(batch)
		if err == nil {
			return nil
		}
		w.drop()
		var lost *commitError
		again := w.db.faultOf(err) == faultRace || w.db.faultOf(err) == faultConn && !errors.As(err, &lost)
		if !again || n == batchTries {
			return err
		}
	}
}

// once runs a batch in one transaction.
func (w *batchWriter) once(batch []*request) error {
	w.events = nil
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	tx := &Tx{db: w.db, run: w.run, write: true, send: w.send}
	if err := w.begin(ctx, tx, batch); err != nil {
		return err
	}
	for _, r := range batch {
		if err := w.savepoint(ctx, tx, r, len(batch) == 1); err != nil {
			return err
		}
	}
	if len(batch) == 1 && (batch[0].err != nil || batch[0].panic != nil) {
		_, err := w.run.ExecContext(ctx, "ROLLBACK")
		return err
	}
	if len(tx.events) > 0 {
		if err := w.db.appendEvents(ctx, tx); err != nil {
			return outage{fmt.Errorf("append to the timeline: %w", err)}
		}
	}
	if err := w.commit(ctx, tx); err != nil {
		return err
	}
	w.db.commitTree(tx)
	w.events = tx.events
	if err := w.db.mark(tx); err != nil {
		return &commitError{err}
	}
	return nil
}

// begin takes the write lock, and reads in the same round trip the timeline's state and
// what a request asks for beforehand: that request is the first, so that it sees what
// others left.
func (w *batchWriter) begin(ctx context.Context, tx *Tx, batch []*request) error {
	list := []statement{stateOf(tx)}
	if n := slices.IndexFunc(batch, func(r *request) bool { return r.lookup != nil }); n >= 0 {
		batch[0], batch[n] = batch[n], batch[0]
		list, tx.looked = append(list, *batch[0].lookup), batch[0]
	}
	return w.db.backend.begin(ctx, w.run, func(before ...statement) error {
		return w.send(ctx, append(before, list...)...)
	})
}

// commit runs what was left for the end, and commits.
func (w *batchWriter) commit(ctx context.Context, tx *Tx) error {
	list := append(tx.takeQueued(), statement{query: "COMMIT"})
	err := w.send(ctx, list...)
	var failed *statementError
	if err == nil || errors.As(err, &failed) && failed.n < len(list)-1 {
		return err
	}
	return &commitError{err}
}

// send runs statements in their order up to the first that fails, in one round trip if
// the database is not in this process.
func (w *batchWriter) send(ctx context.Context, list ...statement) error {
	return w.db.backend.send(ctx, w.conn, w.run, list)
}

// savepoint runs one request's function. The error that it returns is the
// transaction's, not the function's. A request that is alone in its
// transaction needs no savepoint.
func (w *batchWriter) savepoint(ctx context.Context, tx *Tx, r *request, alone bool) error {
	r.err, r.panic = nil, nil
	if !r.claim() {
		r.err = context.Cause(r.ctx)
		return nil
	}
	defer r.release()
	if err := tx.flush(ctx); err != nil {
		return err
	}
	if !alone {
		if _, err := w.run.ExecContext(ctx, "SAVEPOINT one"); err != nil {
			return err
		}
	}
	if r.lookup != nil && r != tx.looked {
		if err := r.lookup.run(ctx, w.run); err != nil {
			return err
		}
	}
	events := len(tx.events)
	r.panic, r.err = call(r, tx)
	if w.db.faultOf(r.err) != faultNone {
		return r.err
	}
	if tx.lost != nil {
		return tx.lost
	}
	if alone {
		return nil
	}
	if r.err != nil || r.panic != nil {
		tx.events, tx.queued = tx.events[:events], nil
		if _, err := w.run.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return err
		}
	}
	_, err := w.run.ExecContext(ctx, "RELEASE one")
	return err
}

// call runs the function and catches its panic, which belongs to the caller.
func call(r *request, tx *Tx) (caught any, err error) {
	defer func() { caught = recover() }()
	return nil, r.f(context.WithValue(r.ctx, writeKey{}, true), tx)
}
