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

// How changes in the store are noticed.
const (
	pollEvery  = 250 * time.Millisecond // how often the store's generation is read
	staleAfter = 2 * time.Second        // after which cached answers are not used without a successful read
)

// Runtime connects the modules to the store and the other services. The program that
// embeds Caddy passes it to [Use] before it loads a configuration. The zero Runtime
// serves sites whose guards trust other people's CAs only.
type Runtime struct {
	// Registry looks up certificates and people; nil knows none.
	Registry gate.Registry
	// People returns all people in the store, for warnings about names in a configuration
	// that no person has; nil means no warnings.
	People func(context.Context) ([]postern.Person, error)
	// Generation returns a number that changes whenever an answer of Registry
	// may have; nil means that none ever does.
	Generation func(context.Context) (int64, error)
	// ClientCAs returns Postern's own client CAs; nil means none. A configuration trusts
	// those that there were when it was loaded.
	ClientCAs func() []*x509.Certificate
	// Issue issues a server certificate for a site that no public CA can serve
	// (localhost, internal names) and returns the PEM chain; nil leaves such
	// names to Caddy.
	Issue func(context.Context, *x509.CertificateRequest) ([]byte, error)
	// Chain returns what is shown after a certificate that Issue returned, as of now, in DER;
	// nil for a certificate of another CA. A nil Chain leaves the chains as they were issued.
	Chain func(leaf *x509.Certificate) [][]byte
	// Log appends events to the timeline; nil drops them.
	Log func(context.Context, ...postern.Event) error
	// Writable reports whether the timeline could be written when that was last tried; nil
	// means that it always can.
	Writable func() bool
	// Lost is called when the use of the Runtime ends and events could not be written; it
	// may be nil.
	Lost func(n int64, err error)
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

// Mount sets the handlers of the other services, which are served where the
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
	unreadable           unreadableClients
	events               *coalesce.Writer // nil: there is no timeline
	decisions            [gate.NumReasons]atomic.Int64
	ambiguous            atomic.Int64
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
		if err := l.events.Close(); err != nil && r.Lost != nil { // there is no later attempt
			r.Lost(l.events.Unwritten(), err)
		}
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

// poll reads the generation once. The answer's time is that of the question, so that it
// is never considered younger than it is.
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

// started is the time from which ages are counted. It has a monotonic reading, so that a
// change of the clock changes no age.
var started = time.Now()

// sinceStart returns the nanoseconds from the program's start to a moment that time.Now
// returned.
func sinceStart(now time.Time) int64 { return int64(now.Sub(started)) }

// fresh reports whether cached answers of the store may still be used. now is what
// time.Now returned.
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

// registry returns the registry, or an empty one.
func (l *live) registry() gate.Registry {
	if l.Registry != nil {
		return l.Registry
	}
	return noRegistry{}
}

type noRegistry struct{}

func (noRegistry) Certificate(context.Context, string, *x509.Certificate) (postern.Credential, postern.Person, error) {
	return postern.Credential{}, postern.Person{}, postern.Errorf(postern.NotFound, "no store")
}

func (noRegistry) PersonByEmail(context.Context, string) (postern.Person, error) {
	return postern.Person{}, postern.Errorf(postern.NotFound, "no store")
}
