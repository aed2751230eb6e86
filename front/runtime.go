package front

import (
	"context"
	"crypto/x509"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
	"github.com/postern-project/postern/internal/coalesce"
)

// How the front door keeps up with the store.
const (
	pollEvery  = 250 * time.Millisecond // how often it asks whether anything changed
	staleAfter = 2 * time.Second        // when it no longer believes what it knew
)

// Runtime is what the modules need of the house. Whoever runs Caddy gives it to
// [Use] before a configuration is loaded. The zero Runtime serves sites whose guards
// trust other people's CAs only.
type Runtime struct {
	// Registry tells who holds certificates; nil knows nobody.
	Registry gate.Registry
	// People returns everybody whom the store knows, for warnings about names in a
	// configuration that nobody has; nil means no warnings.
	People func(context.Context) ([]postern.Person, error)
	// Generation returns a number that changes whenever an answer of Registry
	// may have; nil means that none ever does.
	Generation func(context.Context) (int64, error)
	// ClientCAs returns Postern's own client CAs; nil means none. A configuration
	// counts those of the moment when it was loaded.
	ClientCAs func() []*x509.Certificate
	// Issue signs a server certificate for a site that no public CA can serve
	// (localhost, internal names) and returns the PEM chain; nil leaves such
	// names to Caddy.
	Issue func(context.Context, *x509.CertificateRequest) ([]byte, error)
	// Log appends events to the timeline; nil drops them.
	Log func(context.Context, ...postern.Event) error
}

// Service is a handler mounted at a path.
type Service struct {
	Prefix    string // "/wsapi/"; "/" is what no longer prefix takes
	Handler   http.Handler
	PlainHTTP bool // served over plain HTTP too: CRLs and OCSP
}

// mounts are the services that are served, and the portal's address.
type mounts struct {
	services []Service
	portal   string
}

// Mount sets the handlers of other rooms, which are served where the
// postern_services directive stands and on the portal's site, and the portal's
// address for the page that refuses, which may be empty. A configuration that
// is loaded afterwards serves them.
func Mount(portal string, services ...Service) {
	current().mounted.Store(&mounts{services: services, portal: portal})
}

func (l *live) mounts() mounts {
	if m := l.mounted.Load(); m != nil {
		return *m
	}
	return mounts{}
}

// live is a Runtime in use: it polls the store's generation, and gathers
// events.
type live struct {
	Runtime
	generation           atomic.Int64
	asked                atomic.Int64 // when the generation was last known, nanoseconds from the start
	own                  own
	mounted              atomic.Pointer[mounts]
	verifiedCertificates verifiedCertificates
	tickets              refusedTickets
	events               *coalesce.Writer // nil: there is no timeline
	stop                 context.CancelFunc
	done                 sync.WaitGroup
}

var using atomic.Pointer[live]

// Use gives the modules their Runtime, and returns the function that ends its
// use: it waits until all events are written. It is called once before
// configurations are loaded, and what it returns after the last was stopped.
func Use(r Runtime) (stop func()) {
	l := &live{Runtime: r}
	l.asked.Store(-int64(staleAfter)) // nothing is known yet
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	if r.Log != nil {
		l.events = coalesce.Start(coalesce.Config{Append: r.Log})
	}
	if r.Generation != nil {
		l.poll(ctx)
		l.done.Go(func() { l.keepPolling(ctx) })
	}
	using.Store(l)
	return func() {
		cancel()
		l.done.Wait()
		_ = l.events.Close() // what cannot be written has nobody left to write it
		using.CompareAndSwap(l, nil)
	}
}

// current returns the Runtime in use, or an empty one.
func current() *live {
	if l := using.Load(); l != nil {
		return l
	}
	return idle
}

var idle = new(live)

func (l *live) keepPolling(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.poll(ctx)
		}
	}
}

// poll asks once. The moment counted is the one before the question, so that
// an answer is never taken for younger than it is.
func (l *live) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, staleAfter)
	defer cancel()
	before := time.Now()
	g, err := l.Generation(ctx)
	if err != nil {
		return
	}
	l.generation.Store(g)
	l.asked.Store(sinceStart(before))
}

// started is what ages are counted from. It carries a monotonic reading, so
// that a clock which jumps makes nothing look young or old.
var started = time.Now()

// sinceStart returns the nanoseconds from the program's start to a moment that
// time.Now told.
func sinceStart(now time.Time) int64 { return int64(now.Sub(started)) }

// fresh reports whether what is known of the store may still be believed. now
// is what time.Now told.
func (l *live) fresh(now time.Time) bool {
	return l.Generation == nil || sinceStart(now)-l.asked.Load() < int64(staleAfter)
}

// clientCAs returns Postern's own client CAs.
func (l *live) clientCAs() []*x509.Certificate {
	if l.ClientCAs == nil {
		return nil
	}
	return l.ClientCAs()
}

// registry returns the registry, or one that knows nobody.
func (l *live) registry() gate.Registry {
	if l.Registry != nil {
		return l.Registry
	}
	return nobody{}
}

type nobody struct{}

func (nobody) Certificate(context.Context, string, *x509.Certificate) (postern.Credential, postern.Person, error) {
	return postern.Credential{}, postern.Person{}, postern.Errorf(postern.NotFound, "no store")
}

func (nobody) PersonByEmail(context.Context, string) (postern.Person, error) {
	return postern.Person{}, postern.Errorf(postern.NotFound, "no store")
}
