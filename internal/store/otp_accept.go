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
	states := map[string]*otpState{}
	err := b.otp.db.writeAfter(ctx, otpStates(batch, states), func(ctx context.Context, tx *Tx) error {
		return acceptUses(ctx, tx, batch, states)
	})
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
func acceptUses(ctx context.Context, tx *Tx, batch []*otpUse, states map[string]*otpState) error {
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
			queueSync(tx, w.Use)
		}
	}
	setCounters(tx, states)
	return nil
}

// otpStates is the query for the state of the keys in a batch.
func otpStates(batch []*otpUse, states map[string]*otpState) *statement {
	args := make([]any, 0, otpBatchSize)
	for _, w := range batch {
		args = append(args, w.PublicID)
	}
	for len(args)&(len(args)-1) != 0 { // few lengths, so that statements can be kept
		args = append(args, args[0])
	}
	return &statement{query: otpStatements[len(args)].states, args: args, read: func(rows found) error {
		clear(states)
		for rows.Next() {
			var id, status, owner string
			var stamp, used int64
			var s otpState
			err := rows.Scan(&id, &s.person, &status, &owner, &s.last.Seq, &stamp, &s.last.Nonce, &used)
			if err != nil {
				return err
			}
			k := otp.Key{Person: s.person, Status: postern.CredentialStatus(status), Owner: postern.PersonStatus(owner)}
			s.passes, s.last.Timestamp, s.last.Time = k.Active(), uint32(stamp), fromMicros(used)
			states[id] = &s
		}
		return rows.Err()
	}}
}

// setCounters writes the last use of every key that has a new one. The update itself
// fails if a counter would go back.
func setCounters(tx *Tx, states map[string]*otpState) {
	args := make([]any, 0, 5*otpBatchSize)
	n := 0
	for id, s := range states {
		if s.changed {
			n++
			args = append(args, id, s.last.Seq, int64(s.last.Timestamp), s.last.Nonce, micros(s.last.Time))
		}
	}
	if n == 0 {
		return
	}
	for ; n&(n-1) != 0; n++ {
		args = append(args, args[:5]...)
	}
	tx.later(otpStatements[n].update, args...)
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
				SET seq = CASE WHEN u.seq < v.column2 THEN v.column2 END, stamp = v.column3, nonce = v.column4,
					used = v.column5
				FROM (VALUES ` + strings.Join(values, ", ") + `) AS v
				WHERE u.public_id = v.column1`,
		}
	}
	return all
}()

// otpStatement reads states and sets counters. A counter that does not rise would be
// NULL, which its column refuses.
type otpStatement struct{ states, update string }
