// Package server runs Postern: it opens a state directory, serves the other packages'
// services over HTTPS, and does their background work. It reads no flags and prints
// nothing.
//
// A process runs one server at a time, since Caddy's configuration is global.
package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-project/postern/front"
	_ "github.com/postern-project/postern/front/standard" // all of Caddy stays usable in a configuration
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/metrics"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
)

// Options says what Run serves.
type Options struct {
	State string // the state directory, made if it is missing
	// the Caddyfile; "": ConfigFile in the state directory, made with a sample if it is missing
	Config    string
	HTTPSPort int    // of the sample, when it is made; 0 is any that is free
	HTTPPort  int    // likewise
	Ports     bool   // the ports were given: warn if they take no effect because a configuration exists
	Person    string // whose certificate comes with the sample; "" is "admin"
	// answers pam_postern; "": DefaultSocket for root with the state /var/lib/postern, else none
	PAMSocket string
	Version   string         // of the program
	LogJSON   bool           // Log writes JSON: Caddy does, too
	Keys      ca.Keys        // CAs' keys in HSMs; nil: none
	Log       *slog.Logger   // required
	Ready     func(*Started) // called once, when everything is served; nil: not called
}

// Started is what a server reports when it is ready.
type Started struct {
	Config string // the Caddyfile that is served
	State  string
	Sample *Sample // nil unless the configuration is the sample
}

// server is a running Postern.
type server struct {
	opts      Options
	state     *state.State
	authority *ca.Authority
	oneTime   *OneTime
	log       *slog.Logger // holds back what is about an outage, see health
	health    *health
	metrics   *metrics.Metrics
	monitor   *monitor // nil: none is served
	services  *services
	file      string          // the Caddyfile, absolute
	acmePort  int             // of the sample's portal at localhost, when it is made
	served    []byte          // the configuration that was loaded last
	profiles  []front.Profile // of that configuration
	kept      atomic.Int64    // how long that configuration keeps what has expired; 0: defaultKept

	generation int64           // of the store, when the authority was last read
	newCAs     chan struct{}   // gets one when the CAs or the OCSP and CRL paths differ from those served
	cas        atomic.Value    // the servedCAs when the configuration was loaded last
	reloads    chan chan error // gets one for each request to load the configuration again

	renewalFailed time.Time // when that was logged last
}

// Run serves until ctx ends. SIGHUP makes it load its configuration again.
func Run(ctx context.Context, o Options) (err error) {
	s := &server{opts: o, health: newHealth(o.Log), reloads: make(chan chan error), newCAs: make(chan struct{}, 1)}
	s.log = s.health.logger()
	if err := s.findConfig(); err != nil {
		return err
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.state.Close()) }()
	s.metrics = metrics.New(o.Version, s.sources())
	s.state.Store.Observe(s.observe)
	unlock, err := s.state.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	s.renewIntermediates(ctx) // before anything is issued or served
	sample, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(heapFloor())
	spareThread()
	return s.serve(ctx, &Started{Config: s.file, State: s.state.Dir, Sample: sample})
}

// findConfig finds the Caddyfile. Before anything is written, it reads one that was
// named, or chooses the ports of the sample.
func (s *server) findConfig() (err error) {
	if s.opts.Config == "" {
		s.file = filepath.Join(s.opts.State, ConfigFile)
		return s.samplePorts()
	}
	if s.file, err = filepath.Abs(s.opts.Config); err != nil {
		return err
	}
	return CheckConfig(s.file)
}

// serve starts the services and waits.
func (s *server) serve(ctx context.Context, started *Started) (err error) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	if s.oneTime, err = NewOneTime(s.state, Mappings, s.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.oneTime.Close()) }()
	ssh, err := serveSSH(ctx, s.state, s.oneTime, pamSocketOf(s.opts.PAMSocket, s.state.Dir), s.log)
	if err != nil {
		return err
	}
	defer ssh.Close()
	events, err := ServeEvents(s.state, s, s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	stop := front.Use(s.runtime())
	defer stop()
	if s.services, err = newServices(s); err != nil {
		return err
	}
	defer s.services.close()
	defer func() { err = errors.Join(err, front.Stop()) }()
	defer s.adoptMonitor(nil)
	if err := s.load(ctx); err != nil {
		return err
	}
	renewing, stopRenewing := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { s.keepIntermediates(renewing) })
	background.Go(func() { system.KeepWatchdog(renewing) })
	background.Go(func() { s.keepChecking(renewing) })
	background.Go(func() { s.keepRemoving(renewing) })
	background.Go(func() { s.health.keepTrying(renewing, s.state.Store) })
	defer func() { stopRenewing(); background.Wait() }()
	if s.opts.Ready != nil {
		s.opts.Ready(started)
	}
	s.health.serves(true)
	s.wait(ctx, hup)
	_ = system.Notify("STOPPING=1") // systemd sees the process end anyway
	s.health.serves(false)
	s.services.endStreams() // which stopping the sites would wait for
	return nil
}

// wait loads the configuration again whenever that is requested, until ctx ends.
func (s *server) wait(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			_ = s.reload(ctx) // logged
		case done := <-s.reloads:
			done <- s.reload(ctx)
		case <-s.newCAs:
			s.serveAgain(ctx)
		}
	}
}

// heapFloor returns memory that is never touched, and so is never really allocated, but
// counts for the garbage collector. A server's heap is a few megabytes: without the
// floor, collecting it each time it doubles would be a twentieth of the server's work.
func heapFloor() []byte { return make([]byte, 32<<20) }

// spareThread lets Go code run on one thread more than there are processors. The runtime
// replaces a thread that waits for the disk only after a while, so on a host with two
// processors one would be idle at every commit.
func spareThread() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

// open opens the state directory, and makes what is missing in it.
func (s *server) open(ctx context.Context) (err error) {
	if s.state, err = state.Create(ctx, s.opts.State); err != nil {
		return err
	}
	// Caddy stores an instance ID there, which does not belong in a home directory.
	if err := os.Setenv("XDG_DATA_HOME", s.state.Path("sites")); err != nil {
		return err
	}
	if s.authority, _, err = ca.Ensure(ctx, ca.Config{
		Keys: s.opts.Keys, Makers: s.state.Path(state.MakersFile),
	}, s.state.Store.CA()); err != nil {
		err = errors.Join(err, s.state.Close())
	}
	return err
}
