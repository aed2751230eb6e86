package front

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// recordTimeout bounds how long a request waits until its sign-in is recorded.
const recordTimeout = 5 * time.Second

// record reports whether a request's sign-in is on the timeline. It is written before the
// first request that passes on a connection, and before the first at a guard that requires
// it. Who passes without a certificate does not sign in.
func (g *Guard) record(ctx context.Context, q *authorizationRequest, f decision) bool {
	if f.by == withoutOne || f.verdict.recorded.Load() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if g.live.Log == nil || g.live.Log(ctx, signedIn(q, f.status.identity)) != nil {
		return false
	}
	f.verdict.recorded.Store(true)
	if !f.verdict.passed.Swap(true) {
		g.allowTickets(q)
	}
	return true
}

// signedIn is the event of a request that passed, the first on its connection.
func signedIn(q *authorizationRequest, id *identity) postern.Event {
	return postern.Event{
		Kind: postern.EventSignedIn, Outcome: postern.OK, Person: id.name(), Address: written(q.address),
		Object: q.site.name, Links: id.links,
	}
}

// writable reports whether the timeline could be written when that was last tried.
func (l *live) writable() bool { return l.Writable == nil || l.Writable() }
