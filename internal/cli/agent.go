package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/join"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/record"
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
		o.Follow, o.Roots = join.This(o.Version).Follow, s.Roots()
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
	if o.Flight, err = record.NewFlight(o.record, o.flight.keepOn, o.flight.ring, o.flight.limit); err != nil {
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

func newJoin(a *app) *cobra.Command {
	var o join.Options
	var tokenFile string
	cmd := &cobra.Command{
		Use:   "join [URL [TOKEN]]",
		Short: "Join this host to an installation, or repair what joining made",
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for i, to := range []*string{&o.Server, &o.Token}[:len(args)] {
			*to = args[i]
		}
		if tokenFile != "" {
			token, err := a.prompt().Read(tokenFile)
			if err != nil {
				return err
			}
			o.Token = string(token)
		}
		return a.join(cmd.Context(), o, *asJSON)
	}
	f := cmd.Flags()
	f.StringVar(&tokenFile, "token-file", "", "read the token from this `FILE`; - is standard input")
	f.BoolVar(&o.Apply, "apply", false, "do it; otherwise say what would change")
	return cmd
}

func (a *app) join(ctx context.Context, o join.Options, asJSON bool) error {
	if err := system.OnlyRoot("joining a host"); err != nil {
		return err
	}
	r, err := join.This(system.Version()).Join(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return a.printer().Fields(r, true)
	}
	for _, file := range r.Files {
		fmt.Fprintf(a.out, "%s %s\n", map[bool]string{true: "wrote", false: "would write"}[r.Applied], file)
	}
	if !r.Applied {
		return a.done(nil, "nothing was changed; --apply does it\n")
	}
	return a.done(nil, "%s has joined %s; %s\nwhat sshd had before is in %s\n", r.Host, r.Server, r.Agent, r.Backup)
}

func newLeave(a *app) *cobra.Command {
	return plain("leave", "Undo what joining did on this host", func(ctx context.Context, _ []string) error {
		if err := system.OnlyRoot("leaving"); err != nil {
			return err
		}
		s, err := join.This(system.Version()).Leave(ctx)
		return a.done(err, "%s has left %s; remove it there: postern host remove %s\n", s.Host, s.Server, s.Host)
	})
}
