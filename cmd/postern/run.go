package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	_ "github.com/postern-project/postern/front/standard" // all of Caddy stays usable in a configuration
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

// runOptions are the flags of run.
type runOptions struct {
	config    string
	httpsPort int
	httpPort  int
	reload    bool
	verbose   bool
	pamSocket string
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve the front door, portal and the rest",
		Long: `Serve what the configuration says: sites, their guarded places, the portal and
the services behind it. The configuration is a Caddyfile with one directive more,
require; see the manual.

Without --config it is the file Caddyfile in the state directory. The first run
makes what is missing: the state itself, that file with a sample site of one
guarded page, and a first person with a client certificate. It says where all of
it is and how to get in.

A changed configuration is taken up on SIGHUP, or by postern run --reload, without
dropping a connection; one that cannot be loaded leaves the old in place. --reload
waits until that is settled, and fails with what is wrong.`,
		Example: `  postern run
  postern run --config /etc/postern/Caddyfile
  postern run --reload`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.reload {
				return a.reload(cmd.Context(), &o)
			}
			return a.serve(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "the `FILE` to serve, a Caddyfile (default: Caddyfile in the state directory)")
	f.IntVar(&o.httpsPort, "https-port", 8443, "`PORT` of the sample site, when it is made; 0 is any that is free")
	f.IntVar(&o.httpPort, "http-port", 8080, "`PORT` that sends the sample site's visitors to HTTPS; 0 is any that is free")
	f.BoolVar(&o.reload, "reload", false, "make the server that runs on this state load its configuration again")
	f.StringVar(&o.pamSocket, "pam-socket", "", "answer pam_postern on this `SOCKET` (default for root with the state /var/lib/postern: /run/postern/pam.sock)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what goes well, too")
	return cmd
}

// server is a running postern.
type server struct {
	*app
	opts      *runOptions
	state     *state.State
	authority *ca.Authority
	oneTime   *oneTime
	log       *slog.Logger
	house     *house
	file      string // the Caddyfile, absolute
	served    []byte // the configuration that was loaded last

	generation int64           // of the store, when the authority was last read
	newCAs     chan struct{}   // gets one when the client CAs, or the path for questions about revocation, are no longer those served
	reloads    chan chan error // gets one whenever the configuration is to be loaded again
}

// serve runs until ctx ends.
func (a *app) serve(ctx context.Context, o *runOptions) (err error) {
	s := &server{app: a, opts: o, log: a.logger(o), reloads: make(chan chan error)}
	if o.config != "" { // before anything is made for it
		if s.file, err = filepath.Abs(o.config); err != nil {
			return err
		}
		if _, err := adaptFile(s.file); err != nil {
			return err
		}
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.state.Close()) }()
	unlock, err := s.state.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	first, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(heapFloor())
	spareThread()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	if s.oneTime, err = newOneTime(s.state, s.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.oneTime.Close()) }()
	ssh, err := serveSSH(ctx, s.state, s.oneTime, pamSocketOf(o.pamSocket, s.state.Dir), s.log)
	if err != nil {
		return err
	}
	defer ssh.Close()
	events, err := serveEvents(s.state, s, s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	s.newCAs = make(chan struct{}, 1)
	stop := front.Use(s.runtime())
	defer stop()
	if s.house, err = newHouse(s); err != nil {
		return err
	}
	defer s.house.close()
	defer func() { err = errors.Join(err, front.Stop()) }()
	if err := s.load(ctx); err != nil {
		return err
	}
	s.greet(first)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			_ = s.reload(ctx) // logged
		case done := <-s.reloads:
			done <- s.reload(ctx)
		case <-s.newCAs:
			s.serveAgain(ctx)
		}
	}
}

// heapFloor returns memory that is never touched, and so costs none, but counts
// for the garbage collector: what a server holds is a few megabytes, and
// collecting whenever as much again has been used is a twentieth of its work.
func heapFloor() []byte { return make([]byte, 32<<20) }

// spareThread lets Go code run on one thread more than there are processors: a
// thread that waits for the disk gives up its place only when the runtime
// notices, which on a machine of two would idle one of them at every commit.
func spareThread() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

// reload loads the keys and the configuration again. What is wrong with either
// is logged and returned, and the old one stays.
func (s *server) reload(ctx context.Context) error {
	keys := s.state.TakeKeys()
	if keys != nil {
		s.log.ErrorContext(ctx, "the keys stay as they were", slog.Any(postern.LogError, keys))
		keys = postern.Errorf(postern.CodeOf(keys), "the keys stay as they were: %w", keys)
	}
	if err := s.load(ctx); err != nil {
		s.log.ErrorContext(ctx, "the configuration stays as it was", slog.String(postern.LogFile, s.file), slog.Any(postern.LogError, err))
		return errors.Join(err, keys)
	}
	s.log.InfoContext(ctx, "configuration loaded", slog.String(postern.LogFile, s.file))
	return keys
}

func (a *app) logger(o *runOptions) *slog.Logger {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// open opens the state, and makes what is missing of it.
func (s *server) open(ctx context.Context) (err error) {
	if s.state, err = s.create(ctx); err != nil {
		return err
	}
	// Caddy keeps a number of its own there, which has no place in a home.
	if err := os.Setenv("XDG_DATA_HOME", s.state.Path("sites")); err != nil {
		return err
	}
	if s.authority, _, err = initCA(ctx, s.state, ca.Config{Keys: deviceKeys()}); err != nil {
		err = errors.Join(err, s.state.Close())
	}
	return err
}

// adaptFile reads a Caddyfile.
func adaptFile(file string) ([]byte, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "configuration: %w", err)
	}
	config, _, err := front.Adapt(body, file)
	return config, err
}

// load loads the configuration, its services first.
func (s *server) load(ctx context.Context) error {
	config, err := adaptFile(s.file)
	if err != nil {
		return err
	}
	options, err := front.Options(config)
	if err != nil {
		return err
	}
	if err := s.authority.SetPortalURL(ctx, options.PlainURL()); err != nil {
		return err
	}
	config, err = front.Defaults{Storage: s.state.Path("sites"), Verbose: s.opts.verbose, Grace: 10 * time.Second}.Apply(config)
	if err != nil {
		return err
	}
	next, err := s.house.prepare(ctx, options)
	if err != nil {
		return err
	}
	s.house.mount(next)
	if err := front.Load(config); err != nil {
		s.house.keep(next)
		return err
	}
	s.house.adopt(next)
	s.served = config
	return nil
}

// serveAgain loads what is served once more, for the CAs of this moment: the file
// may be half changed.
func (s *server) serveAgain(ctx context.Context) {
	s.house.mount(s.house.now)
	if err := front.Load(s.served); err != nil {
		s.log.ErrorContext(ctx, "what changed of the CAs does not count before the next reload", slog.Any(postern.LogError, err))
		return
	}
	s.log.InfoContext(ctx, "what changed of the CAs counts")
}

// storeGeneration returns the store's generation, after the authority has taken
// up what changed: CAs that another process made, and keys that it removed. If
// it cannot, it stays as it was and tries again at the next call. Calls must not
// overlap.
func (s *server) storeGeneration(ctx context.Context) (int64, error) {
	g, err := s.state.Store.Generation(ctx)
	if err != nil || g == s.generation {
		return g, err
	}
	before, path := len(s.authority.Intermediates(ca.Client)), s.authority.URLPath()
	if err := s.authority.Reload(ctx); err != nil {
		s.log.ErrorContext(ctx, "the CAs stay as they were", slog.Any(postern.LogError, err))
		return g, nil
	}
	s.generation = g
	if len(s.authority.Intermediates(ca.Client)) != before || s.authority.URLPath() != path {
		select {
		case s.newCAs <- struct{}{}:
		default:
		}
	}
	return g, nil
}

// runtime fits the house to the front door.
func (s *server) runtime() front.Runtime {
	return front.Runtime{
		Registry:   frontRegistry{s.state.Store},
		People:     s.state.Store.People,
		Generation: s.storeGeneration,
		ClientCAs:  func() []*x509.Certificate { return s.authority.Intermediates(ca.Client) },
		Issue:      s.issueSite,
		Log:        func(ctx context.Context, e ...postern.Event) error { return s.state.Store.Append(ctx, e...) },
	}
}

// frontRegistry tells the front door who holds which certificate.
type frontRegistry struct{ db *store.DB }

// Certificate returns a certificate's standing and its holder.
func (r frontRegistry) Certificate(ctx context.Context, serial string, issuer *x509.Certificate) (c postern.Credential, p postern.Person, err error) {
	err = r.db.Read(ctx, func(ctx context.Context, tx *store.Tx) error {
		issued, revoked, err := tx.IssuedBy(ctx, serial, issuer.Raw)
		switch {
		case err != nil:
			return err
		case !issued:
			return postern.Errorf(postern.NotFound, "%s did not issue %s", issuer.Subject, serial)
		}
		if c, err = tx.Credential(ctx, postern.X509Certificate, serial); err != nil {
			return err
		}
		if revoked {
			c.Status = postern.CredentialRevoked
		}
		p, err = tx.Person(ctx, c.Person)
		return err
	})
	return c, p, err
}

// PersonByEmail returns the person with an address.
func (r frontRegistry) PersonByEmail(ctx context.Context, email string) (postern.Person, error) {
	return r.db.PersonByEmail(ctx, email)
}

// greet says where the server stands.
func (s *server) greet(first *firstRun) {
	fmt.Fprintf(s.out, "postern %s serves %s (state in %s, process %s)\n", version(), s.file, s.state.Dir, strconv.Itoa(os.Getpid()))
	if first != nil {
		first.print(s.out)
	}
}
