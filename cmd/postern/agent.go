package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/spf13/cobra"
)

// agentOptions are the flags of agent.
type agentOptions struct {
	server, cert, key, ca string
	host, spool           string
	spoolSize             byteSize
	all, print, verbose   bool
	procedures, paths     []string
}

func newAgent(a *app) *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Send what this host sees to a Postern server",
		Long: `Watch libvirt on this host and send each call that changes something, or reads a
secret, to the timeline: which procedure on which virtual machine, how it ended
and how long it took, from which address or process and in which login session.
By the session the timeline knows who it was. What the calls carry is not sent.

Without --server the events go to the server on this host, over the socket
agent.sock in its state directory. With --server they go there over HTTPS, with a
client certificate of a person in the group agents; the person is named as the
host, see --host.

While the server is away, events wait on disk, and the oldest are dropped when
there are too many; the timeline says how many. Each event is written once,
however often it is sent. Needs a kernel of 5.15 or newer, and root or CAP_BPF,
CAP_PERFMON and CAP_SYS_PTRACE.`,
		Example: `  postern agent
  postern agent --print --procedure 'domain_*'
  postern agent --server https://id.example.com --cert hv1.pem --key hv1.key --host hv1`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.agent(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "send to the server at this `URL`, not to the one on this host")
	f.StringVar(&o.cert, "cert", "", "client certificate, PEM `FILE`")
	f.StringVar(&o.key, "key", "", "its private key, PEM `FILE`")
	f.StringVar(&o.ca, "ca", "", "the authority of the server's certificate, PEM `FILE` (default: those that this host trusts)")
	f.StringVar(&o.host, "host", "", "`NAME` of this host in events (default: its host name)")
	f.StringVar(&o.spool, "spool", "", "`DIR` for events that wait (default: the state directory's name with -agent behind it)")
	o.spoolSize = 64 << 20
	f.Var(&o.spoolSize, "spool-size", "at most this `SIZE` waits on disk")
	f.BoolVar(&o.all, "all", false, "send every call, those that only read too")
	f.StringSliceVar(&o.procedures, "procedure", nil, "send these procedures instead; `GLOB`s: domain_*, qemu.*")
	f.StringSliceVar(&o.paths, "path", nil, "watch only these `FILE`s of libvirt, instead of all that are found")
	f.BoolVar(&o.print, "print", false, "print what is sent, one JSON object a line")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what goes well, too")
	return cmd
}

// agent watches and sends until ctx ends.
func (a *app) agent(ctx context.Context, o *agentOptions) (err error) {
	watched, err := watchedCalls(o.all, o.procedures)
	if err != nil {
		return err
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	if o.host == "" {
		if o.host, err = os.Hostname(); err != nil {
			return postern.Errorf(postern.Internal, "the name of this host: %w", err).WithHint("name it with --host")
		}
	}
	target, client, err := o.target(dir)
	if err != nil {
		return err
	}
	if o.spool == "" {
		o.spool = dir + "-agent"
	}
	log := a.logger(&runOptions{verbose: o.verbose})
	spool, err := relay.OpenSpool(relay.SpoolConfig{Dir: o.spool, MaxBytes: int64(o.spoolSize)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	sender, err := relay.NewSender(relay.SenderConfig{URL: target, Host: o.host, Client: client}, spool, log)
	if err != nil {
		return err
	}
	session, err := capture.Start(capture.Config{
		What: capture.RPC, Paths: o.paths, Filter: correlate.Filter{Procedures: watched.set(), Connections: true},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	w := newCallWatcher(o.host, watched, func(e postern.Event) { a.spool(spool, e, o.print, log) })
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { sender.Run(sending) })
	w.say(postern.EventAgentStarted)
	ready(a.err, session)
	err = session.Run(ctx, w)
	w.close()
	w.say(postern.EventAgentStopped)
	stop()
	running.Wait()
	return errors.Join(err, sendRest(ctx, sender, spool, log))
}

// spool keeps an event for the sender.
func (a *app) spool(s *relay.Spool, e postern.Event, show bool, log *slog.Logger) {
	if err := s.Append(e); err != nil {
		log.Error("an event is lost", slog.Any(postern.LogError, err))
	}
	if show {
		_ = printJSON(a.out, e)
	}
}

// lastWords is how long the end waits for the server.
const lastWords = 5 * time.Second

// sendRest sends what is left at the end. What cannot be sent waits for the next
// start.
func sendRest(ctx context.Context, s *relay.Sender, spool *relay.Spool, log *slog.Logger) error {
	if err := spool.Sync(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	for more := true; more; {
		var err error
		if more, err = s.Send(ctx); err != nil {
			log.Warn("the last events wait on disk for the next start", slog.Any(postern.LogError, err))
			return nil
		}
	}
	return nil
}

// target returns where to send, and by what.
func (o *agentOptions) target(stateDir string) (string, *http.Client, error) {
	transport := &http.Transport{ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second}
	// Nothing that is sent goes where a server points to.
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if o.server == "" {
		if o.cert != "" || o.key != "" || o.ca != "" {
			return "", nil, postern.Errorf(postern.Invalid, "--cert, --key and --ca are for a --server")
		}
		socket := filepath.Join(stateDir, agentSocket)
		transport.DialContext = dialSocket(socket)
		return "http://postern" + relay.Path, client, nil
	}
	u, err := url.Parse(o.server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return "", nil, postern.Errorf(postern.Invalid, "--server %q is not an address such as https://id.example.com", o.server)
	}
	if o.cert == "" || o.key == "" {
		return "", nil, postern.Errorf(postern.Invalid, "--server needs --cert and --key").
			WithHint("postern user add NAME --group agents, and postern ca issue --client NAME, on the server")
	}
	transport.Proxy = http.ProxyFromEnvironment
	transport.TLSClientConfig, err = o.tls()
	return "https://" + u.Host + relay.Path, client, err
}

// dialSocket leads an HTTP client to a Unix socket, whatever the address is.
func dialSocket(path string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// tls returns the configuration of a client that reads its certificate for each
// connection, so that a renewed one counts.
func (o *agentOptions) tls() (*tls.Config, error) {
	if _, err := tls.LoadX509KeyPair(o.cert, o.key); err != nil {
		return nil, postern.Errorf(postern.Invalid, "the client certificate: %w", err)
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.cert, o.key)
			return &pair, err
		},
	}
	if o.ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, postern.Errorf(postern.Invalid, "no certificate in %s", o.ca)
	}
	return c, nil
}
