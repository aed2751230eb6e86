package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
)

// settled is how long the database must have been read and written without an error
// until an outage is over, and tryEvery how often a write is tried meanwhile.
const (
	settled  = 2 * time.Second
	tryEvery = time.Second
)

// health knows whether the database is available. It logs one line when an outage
// begins and one when it ends, with the number of lines that say the same and were not
// written; see [health.logger].
type health struct {
	log *slog.Logger // that is not held back

	mu     sync.Mutex
	began  time.Time // of the outage; zero if there is none
	failed time.Time // when something failed last
	read   bool      // the last read succeeded
	wrote  bool      // the last write succeeded
	held   int       // lines that were not written
	served bool      // a configuration is served
}

func newHealth(log *slog.Logger) *health { return &health{log: log, read: true, wrote: true} }

// up reports whether the database could be read and written when that was last tried.
func (h *health) up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.began.IsZero()
}

// writable reports whether the database could be written when that was last tried.
func (h *health) writable() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wrote
}

// ready returns why requests are not served as they should be, or "".
func (h *health) ready() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.served:
		return "no configuration is served"
	case !h.read:
		return "the database cannot be read"
	case !h.wrote:
		return "the database cannot be written"
	}
	return ""
}

// serves records whether a configuration is served.
func (h *health) serves(served bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.served = served
}

// afterRead records how a read of the database ended.
func (h *health) afterRead(err error) { h.after(&h.read, err) }

// afterWrite records how a write to the database ended.
func (h *health) afterWrite(err error) { h.after(&h.wrote, err) }

func (h *health) after(succeeded *bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*succeeded = err == nil
	if err != nil {
		h.fail(err)
		return
	}
	now := time.Now()
	if h.began.IsZero() || !h.read || !h.wrote || now.Sub(h.failed) < settled {
		return
	}
	h.log.Warn("the database is available again", slog.Duration(postern.LogTook, now.Sub(h.began).Round(time.Second)),
		slog.Int(postern.LogCount, h.held))
	h.began, h.held = time.Time{}, 0
}

// fail begins an outage, unless there is one. The caller holds the lock.
func (h *health) fail(err error) {
	h.failed = time.Now()
	if h.began.IsZero() {
		h.began = h.failed
		h.log.Error("the database is unavailable; what fails because of it is counted, and not logged until it is "+
			"available again", slog.Any(postern.LogError, err))
	}
}

// hold reports whether a line is not written, since an outage is what it is about.
func (h *health) hold(err error) bool {
	if !store.IsOutage(err) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail(err)
	h.held++
	return true
}

// logger returns the logger of all parts of the server, which holds back lines about an
// outage of the database.
func (h *health) logger() *slog.Logger { return slog.New(holding{h.log.Handler(), h}) }

// holding is the handler of that logger.
type holding struct {
	slog.Handler
	health *health
}

// Handle implements [slog.Handler].
func (o holding) Handle(ctx context.Context, r slog.Record) error {
	held := false
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			held = o.health.hold(err)
		}
		return !held
	})
	if held {
		return nil
	}
	return o.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (o holding) WithAttrs(attrs []slog.Attr) slog.Handler {
	return holding{o.Handler.WithAttrs(attrs), o.health}
}

// WithGroup implements [slog.Handler].
func (o holding) WithGroup(name string) slog.Handler {
	return holding{o.Handler.WithGroup(name), o.health}
}

// keepTrying tries to write while that fails, so that the end of an outage is noticed
// where nothing else is written. It ends with ctx.
func (h *health) keepTrying(ctx context.Context, db *store.DB) {
	every(ctx, tryEvery, func() {
		if !h.up() {
			_ = db.TryWrite(ctx) // the database's observer learns how it ended
		}
	})
}
