package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

const (
	otpBatchSize    = 64               // uses in one statement, a power of two
	otpBatchTimeout = 20 * time.Second // for one batch to become durable
)

// otpBatch gathers uses that come at the same time: while one batch becomes
// durable, the next one fills. Each is one Write with one query and one update.
type otpBatch struct {
	otp *OTP

	mu      sync.Mutex
	waiting []*otpUse
	running bool
}

// otpUse is a use waiting for its verdict.
type otpUse struct {
	otp.Use
	verdict otp.Verdict
	before  otp.Last
	err     error
	done    chan struct{}
}

// Accept implements [otp.Keys].
func (o *OTP) Accept(ctx context.Context, u otp.Use) (otp.Verdict, otp.Last, error) {
	if err := o.db.refusing(); err != nil {
		return otp.Refused, otp.Last{}, err
	}
	w := &otpUse{Use: u, done: make(chan struct{})}
	o.batch.add(w)
	select {
	case <-w.done:
		return w.verdict, w.before, w.err
	case <-ctx.Done():
		// Whether the code was recorded is not known: it is refused.
		return otp.Refused, otp.Last{}, postern.Errorf(postern.Unavailable, "accept a code: %w", ctx.Err())
	}
}

func (b *otpBatch) add(w *otpUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, w)
	if !b.running {
		b.running = true
		go b.run()
	}
}

// run works until no caller waits. The callers that wait are its owners.
func (b *otpBatch) run() {
	for {
		b.mu.Lock()
		n := min(len(b.waiting), otpBatchSize)
		if n == 0 {
			b.waiting, b.running = nil, false
			b.mu.Unlock()
			return
		}
		batch := b.waiting[:n:n]
		b.waiting = b.waiting[n:]
		b.mu.Unlock()
		b.accept(batch)
	}
}

func (b *otpBatch) accept(batch []*otpUse) {
	ctx, cancel := context.WithTimeout(context.Background(), otpBatchTimeout)
	defer cancel()
	err := b.otp.db.Write(ctx, func(ctx context.Context, tx *Tx) error { return acceptUses(ctx, tx, batch) })
	for _, w := range batch {
		if err != nil {
			w.verdict, w.before, w.err = otp.Refused, otp.Last{}, err
		}
		close(w.done)
	}
}

// otpState is what the database says about a key before a use.
type otpState struct {
	person  string
	passes  bool
	last    otp.Last
	changed bool
}

// acceptUses decides on every use in turn, as if each had a transaction of its
// own: a second use of one key sees what the first left.
func acceptUses(ctx context.Context, tx *Tx, batch []*otpUse) error {
	states, err := otpStates(ctx, tx, batch)
	if err != nil {
		return err
	}
	for _, w := range batch {
		s := states[w.PublicID]
		w.verdict, w.before = otp.Refused, otp.Never
		if s == nil {
			continue
		}
		w.before = s.last
		switch {
		case !s.passes || w.Person != "" && w.Person != s.person:
		case w.Seq <= s.last.Seq:
			w.verdict = otp.Replayed
		default:
			w.verdict = otp.Accepted
			s.last, s.changed = w.Last, true
			if err := appendAll(ctx, tx, w.Events); err != nil {
				return err
			}
			if err := queueSync(ctx, tx, w.Use); err != nil {
				return err
			}
		}
	}
	return setCounters(ctx, tx, states)
}

// otpStates reads the state of the keys in a batch.
func otpStates(ctx context.Context, tx *Tx, batch []*otpUse) (map[string]*otpState, error) {
	args := make([]any, 0, otpBatchSize)
	for _, w := range batch {
		args = append(args, w.PublicID)
	}
	for len(args)&(len(args)-1) != 0 { // few lengths, so that statements can be kept
		args = append(args, args[0])
	}
	rows, err := tx.Query(ctx, otpStatements[len(args)].states, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	states := make(map[string]*otpState, len(batch))
	for rows.Next() {
		var id, status, owner string
		var stamp, used int64
		var s otpState
		if err := rows.Scan(&id, &s.person, &status, &owner, &s.last.Seq, &stamp, &s.last.Nonce, &used); err != nil {
			return nil, err
		}
		k := otp.Key{Person: s.person, Status: postern.CredentialStatus(status), Owner: postern.PersonStatus(owner)}
		s.passes, s.last.Timestamp, s.last.Time = k.Active(), uint32(stamp), fromMicros(used)
		states[id] = &s
	}
	return states, rows.Err()
}

// setCounters writes the last use of every key that has a new one. The update
// itself checks again that no counter goes back.
func setCounters(ctx context.Context, tx *Tx, states map[string]*otpState) error {
	args := make([]any, 0, 5*otpBatchSize)
	changed := int64(0)
	for id, s := range states {
		if s.changed {
			changed++
			args = append(args, id, s.last.Seq, int64(s.last.Timestamp), s.last.Nonce, micros(s.last.Time))
		}
	}
	if changed == 0 {
		return nil
	}
	n := changed
	for ; n&(n-1) != 0; n++ {
		args = append(args, args[:5]...)
	}
	rows, err := tx.Exec(ctx, otpStatements[int(n)].update, args...)
	if err == nil && rows != changed {
		err = postern.Errorf(postern.Internal, "accept codes: %d of %d counters were set", rows, changed)
	}
	return err
}

// otpStatements holds the statements for batches of 1, 2, 4 … rows. Each key is
// looked up by a query of its own, so that no planner takes it for cheaper to
// read all keys.
var otpStatements = func() map[int]otpStatement {
	all := map[int]otpStatement{}
	for n := 1; n <= otpBatchSize; n *= 2 {
		var states, values []string
		for i := range n {
			states = append(states, fmt.Sprintf(`
				SELECT c.id, COALESCE(c.person, ''), c.status, COALESCE(p.status, ''), u.seq, u.stamp, u.nonce, u.used
				FROM credentials c JOIN otp_counters u ON u.public_id = c.id LEFT JOIN people p ON p.name = c.person
				WHERE c.kind = 'yubikey' AND c.id = $%d`, i+1))
			values = append(values, fmt.Sprintf("(CAST($%d AS TEXT), CAST($%d AS BIGINT), CAST($%d AS BIGINT), "+
				"CAST($%d AS TEXT), CAST($%d AS BIGINT))",
				5*i+1, 5*i+2, 5*i+3, 5*i+4, 5*i+5))
		}
		all[n] = otpStatement{
			states: strings.Join(states, " UNION ALL "),
			update: `UPDATE otp_counters AS u
				SET seq = v.column2, stamp = v.column3, nonce = v.column4, used = v.column5
				FROM (VALUES ` + strings.Join(values, ", ") + `) AS v
				WHERE u.public_id = v.column1 AND u.seq < v.column2`,
		}
	}
	return all
}()

type otpStatement struct{ states, update string }
