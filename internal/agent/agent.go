// Package agent is what postern agent runs on a host: it reports the calls to
// libvirt that matter to security to a server's timeline. On a host of another server it
// also answers pam_postern for that server, and reports who logs in.
//
// It has no database. Events wait in a spool until the server has acknowledged them.
// The arguments of the calls are not reported.
package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/record"
)

// Config says what an agent watches, and where it reports to.
type Config struct {
	Host    string   // name of this host in events
	Version string   // of the program
	Watched Watched  // nil means every call; where logins are answered, an empty set means none
	Paths   []string // only these files of libvirt's; none means all
	// Target is where events are sent; nil for nowhere, then there is no spool.
	Target *Target
	Spool  relay.SpoolConfig
	// Flight records what is around calls of which its condition is true, and reports each
	// file to the timeline; nil for none. Its Kept and Failed are the agent's.
	Flight *record.Flight
	// Logins are answered for the Target; the zero value: none are.
	Logins Logins
	// Follow keeps current what joining put on this host, through the Target and until ctx
	// ends, and reports the problems that an audit finds. nil: this host has not joined.
	Follow func(ctx context.Context, client *http.Client, url string, problems func(context.Context) []string,
		log *slog.Logger)
	// Roots are those under which the server's decisions must be signed; nil: its own
	// certificate is enough.
	Roots func() (*x509.CertPool, error)
	// Print is called with every event, unless it is nil.
	Print func(postern.Event)
	// Ready is called once calls are seen, unless it is nil.
	Ready func(*capture.Session)
	Log   *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Host == "" || c.Log == nil || c.Target == nil && (c.Print == nil || c.Logins != Logins{}) {
		return postern.Errorf(postern.Invalid, "an agent needs the name of its host, a log, and where to report to")
	}
	return nil
}

// Run watches and reports until ctx ends.
func Run(ctx context.Context, c Config) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	report, err := c.reporter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.close()) }()
	var seen *watching
	if c.Logins == (Logins{}) {
		if seen, err = c.watch(report); err != nil {
			return err
		}
	}
	stop := report.start(ctx)
	report.event(status(postern.EventAgentStarted, c.Host, c.Version))
	err = c.work(ctx, seen, report)
	report.event(status(postern.EventAgentStopped, c.Host, c.Version))
	stop()
	return errors.Join(err, report.rest(ctx))
}

// client returns a client of the server whose decisions it has verified.
func (c Config) client() *http.Client {
	verified := *c.Target.Client
	if c.Roots != nil {
		verified.Transport = host.VerifyReplies(verified.Transport, c.Host, c.Roots)
	}
	return &verified
}

// reporter takes events to the spool and from there to the server, and prints them.
type reporter struct {
	spool  *relay.Spool // nil without a server
	sender *relay.Sender
	host   string
	print  func(postern.Event)
	log    *slog.Logger
}

func (c Config) reporter() (*reporter, error) {
	r := &reporter{host: c.Host, print: c.Print, log: c.Log}
	if c.Target == nil {
		return r, nil
	}
	spool, err := relay.OpenSpool(c.Spool)
	if err != nil {
		return nil, err
	}
	r.spool = spool
	to := relay.SenderConfig{URL: c.Target.Base + relay.Path, Host: c.Host, Client: c.client()}
	r.sender, err = relay.NewSender(to, spool, c.Log)
	if err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	return r, nil
}

func (r *reporter) event(e postern.Event) {
	if r.spool != nil {
		if err := r.spool.Append(e); err != nil {
			r.log.Error("an event is lost", slog.Any(postern.LogError, err))
		}
	}
	if r.print != nil {
		r.print(e)
	}
}

// start sends in the background until stop is called.
func (r *reporter) start(ctx context.Context) (stop func()) {
	if r.sender == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { r.sender.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

// endWait is how long the end waits for the server.
const endWait = 5 * time.Second

// rest sends what is left at the end. What cannot be sent is sent after the next
// start.
func (r *reporter) rest(ctx context.Context) error {
	if r.spool == nil {
		return nil
	}
	if err := r.spool.Sync(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	for more := true; more; {
		var err error
		if more, err = r.sender.Send(ctx); err != nil {
			r.log.Warn("the last events stay on disk until the next start", slog.Any(postern.LogError, err))
			return nil
		}
	}
	return nil
}

func (r *reporter) close() error {
	if r.spool == nil {
		return nil
	}
	return r.spool.Close()
}
