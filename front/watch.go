package front

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern/gate"
)

// watchEvery is how often an exchange that lasts is decided about again. With
// pollEvery it is how long one may outlive a revocation.
const watchEvery = 500 * time.Millisecond

// watch is an exchange that passed a guard and is under way: an upgraded
// connection, a stream, a long body in either direction. Should it last, the guards
// are asked again and again whether it would pass now, and when it would not
// both its directions are cut.
type watch struct {
	guard  *Guard
	began  []authorizationRequest // the guards that it passed when it began
	passed []authorizationRequest // those of now
	host   string
	path   reaches
	seen   int64 // the state of the configuration whose guards are asked, see guardedSites
	conn   *conn
	stream *http.ResponseController // nil where the exchange has the connection to itself

	cut bool // of the timer's function alone

	mu    sync.Mutex // held to touch the response, and to end
	timer *time.Timer
	ended bool
}

// watch begins to watch the exchange, until the returned watch is ended.
func (p *requestState) watch(w http.ResponseWriter, r *http.Request) *watch {
	x := &watch{
		guard: p.guard, began: p.passed, passed: p.passed, host: r.Host, path: p.judged, conn: connOf(r),
		seen: guarded.changes.Load(),
	}
	if r.ProtoMajor > 1 {
		x.stream = http.NewResponseController(innermost(w))
	}
	ctx := context.WithoutCancel(r.Context())
	x.mu.Lock()
	defer x.mu.Unlock()
	x.timer = time.AfterFunc(watchEvery, func() { x.look(ctx) })
	return x
}

// innermost returns the server's own writer: those around it are for the
// handlers alone, which are at work meanwhile.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// end ends watching: the response may not be touched any more.
func (x *watch) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.timer.Stop()
	x.ended = true
}

// look decides again, and cuts the exchange if it would not pass now.
func (x *watch) look(ctx context.Context) {
	var q *authorizationRequest
	var f decision
	if !x.cut {
		q, f = x.refusal(ctx)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return
	}
	if q != nil {
		x.cut = true
		x.guard.noteRefusal(q, f)
	}
	switch past := time.Unix(1, 0); {
	case !x.cut:
	case x.stream != nil:
		_ = x.stream.SetReadDeadline(past)
		_ = x.stream.SetWriteDeadline(past)
	default:
		x.conn.cut()
	}
	x.timer.Reset(watchEvery)
}

// refusal asks the guards, and returns what the first that does not open any
// more found; nil if all do.
func (x *watch) refusal(ctx context.Context) (*authorizationRequest, decision) {
	if changes := guarded.changes.Load(); changes != x.seen {
		x.seen = changes
		if !x.follow() {
			return &x.began[0], decision{reason: gate.Closed}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, staleAfter)
	defer cancel()
	for i := range x.passed {
		if f := x.passed[i].decide(ctx, x.guard.live, time.Now()); f.reason != gate.OK {
			return &x.passed[i], f
		}
	}
	return nil, decision{}
}

// follow asks the guards of the configuration that is served now. It reports false
// where they read more of the request than was kept. Who was named to the
// application must go on passing by certificate.
func (x *watch) follow() bool {
	kept := x.began[0]
	for _, q := range x.began[1:] {
		kept.tls, kept.request = cmp.Or(kept.tls, q.tls), cmp.Or(kept.request, q.request)
		if q.passed == byCertificate {
			kept.passed = byCertificate
		}
	}
	if kept.passed != byCertificate {
		kept.passed = notYet
	}
	guards, ok := guarded.covering(x.host, x.path)
	x.passed = nil
	for _, s := range guards {
		q := kept
		q.site = s
		if q.request == nil && (s.Moving() || s.HasOpen()) {
			return false
		}
		x.passed = append(x.passed, q)
	}
	return ok
}
