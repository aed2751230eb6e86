package cli

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/join"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// agentOptions are the flags of agent.
type agentOptions struct {
	agent.Config
	server     agent.Server
	spoolSize  terminal.Size
	all, print bool
	log        *logFlags
	procedures []string
	protocol   *[]string
	record     string
	flight     flightFlags
}

func newAgent(a *app) *cobra.Command {
	o := agentOptions{Config: agent.Config{Version: system.Version(), Ready: a.watching}, spoolSize: 64 << 20}
	cmd := plain("agent", "Send what this host sees to a Postern server",
		func(ctx context.Context, _ []string) error { return a.agent(ctx, &o) })
	f := cmd.Flags()
	f.StringSliceVar(&o.server.URLs, "server", nil,
		"send to the server at this `URL`, not to the one on this host, and answer logins for it; several: in turn")
	f.StringVar(&o.server.Cert, "cert", "", "client certificate, PEM `FILE`")
	f.StringVar(&o.server.Key, "key", "", "its private key, PEM `FILE`")
	f.StringVar(&o.server.CA, "ca",
		"", "the authority of the server's certificate, PEM `FILE` (default: those that this host trusts)")
	f.StringVar(&o.Host, "host", "", "`NAME` of this host in events (default: its host name)")
	f.StringVar(&o.Spool.Dir, "spool", "",
		"`DIR` for events that wait (default: the state directory's name with -agent behind it)")
	f.Var(&o.spoolSize, "spool-size", "at most this `SIZE` waits on disk")
	f.StringVar(&o.Logins.PAM, "pam-socket", "",
		"answer pam_postern on this `FILE` for the server (default, as root with --server: "+sshd.DefaultSocket+")")
	f.BoolVar(&o.all, "all", false, "send every call, those that only read too")
	f.StringSliceVar(&o.procedures, "procedure", nil, "send these procedures instead; `GLOB`s: domain_*, qemu.*")
	f.StringSliceVar(&o.Paths, "path", nil, "watch only these `FILE`s of libvirt, instead of all that are found")
	f.BoolVar(&o.print, "print", false,
		"print the events, one JSON object a line; without --state, --spool and --server do nothing else")
	f.StringVar(&o.record, "record", "",
		"record what is around calls of --keep-on in files of this `NAME`, each with its time, and send where they are")
	o.flight = flightFlags{limit: 1 << 30}
	o.flight.add(f, "of --record: remove the oldest files when all have this `SIZE`; 0 for no limit")
	o.protocol, o.log = protocolFlag(f), logFlagsOf(cmd)
	cmd.MarkFlagsMutuallyExclusive("all", "procedure")
	cmd.MarkFlagsRequiredTogether("record", "keep-on")
	cmd.AddCommand(newAgentNetwork(a))
	return cmd
}

// newAgentNetwork makes the command by which the agent starts itself without rights.
func newAgentNetwork(a *app) *cobra.Command {
	return hidden(plain("network", "The part of the agent that talks to the network",
		func(ctx context.Context, _ []string) error {
			return agent.Network(ctx, os.Stdin, os.NewFile(3, "socket"), a.log(logFlags{}))
		}))
}

// agent watches and sends until ctx ends.
func (a *app) agent(ctx context.Context, o *agentOptions) (err error) {
	o.Log, o.Spool.MaxBytes = a.log(*o.log), int64(o.spoolSize)
	if s, err := join.This(o.Version).State(); err == nil && len(o.server.URLs) == 0 && !o.print {
		o.server.URLs, o.Host = []string{s.Server}, cmp.Or(o.Host, s.Host)
		o.server.Credentials = agent.Credentials{Cert: join.CertFile, Key: join.KeyFile, CA: s.CA()}
		go join.This(o.Version).Follow(ctx, o.Log)
	}
	if o.Host, err = system.HostName(o.Host); err != nil {
		return err
	}
	if err = a.loadProtocol(*o.protocol); err != nil {
		return err
	}
	if !o.all {
		if o.Watched, err = agent.Watch(o.procedures); err != nil {
			return err
		}
	}
	if o.Flight, err = o.flight.flight(o.record); err != nil {
		return err
	}
	if o.print {
		o.Print = func(e postern.Event) { _ = terminal.JSON(a.out, e) }
	}
	if o.print && len(o.server.URLs) == 0 && cmp.Or(o.Spool.Dir, a.state, os.Getenv("POSTERN_STATE")) == "" {
		return agent.Run(ctx, o.Config) // to look at only
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	o.server.Socket, o.Spool.Dir = filepath.Join(dir, relay.Socket), cmp.Or(o.Spool.Dir, dir+"-agent")
	var stop func()
	if o.Target, stop, err = o.server.Reach(ctx, o.Spool.Dir, o.Log); err != nil {
		return err
	}
	defer stop()
	o.Logins = agent.LoginSockets(o.Logins.PAM, len(o.server.URLs) > 0)
	return agent.Run(ctx, o.Config)
}
