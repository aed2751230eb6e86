package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/join"
	"github.com/postern-project/postern/internal/system"
	"github.com/spf13/cobra"
)

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
			token, err := a.readInput(tokenFile)
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
	if err := onlyRoot("joining a host"); err != nil {
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
		if err := onlyRoot("leaving"); err != nil {
			return err
		}
		s, err := join.This(system.Version()).Leave(ctx)
		return a.done(err, "%s has left %s; remove it there: postern host remove %s\n", s.Host, s.Server, s.Host)
	})
}

// onlyRoot fails unless root runs this on Linux.
func onlyRoot(what string) error {
	if err := system.OnlyLinux(what); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return postern.Errorf(postern.Denied, "%s is for root", what).WithHint("run it with sudo")
	}
	return nil
}
