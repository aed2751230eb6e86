// Package cli is the command line: each command is its flags, one call into
// another package, and printing. It is the one package that prints, exits or
// reads the environment.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/manual"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/usage"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs the command line of this process and returns its exit code. An
// interrupt or SIGTERM ends what the command does.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// app is what every command needs: where to read and write, and which state
// directory to use. Commands print to out and complain by returning an error.
type app struct {
	in       io.Reader
	out, err io.Writer
	screen   terminal.Screen // what out shows
	state    string          // --state, or the default; see stateDir
	archive  string          // --archive
}

// run executes one command line and returns the exit code. It is the one place
// that prints an error and maps it to a code.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw, screen: terminal.ScreenOf(out)}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	err = usage.Classified(err)
	if msg := usage.Message(err); msg != "" {
		fmt.Fprintf(errw, "postern: %s\n", msg)
		if hint := a.hintFor(ctx, cmd, err); hint != "" {
			fmt.Fprintf(errw, "hint: %s\n", hint)
		}
	}
	return postern.CodeOf(err).ExitCode()
}

func newRoot(a *app) *cobra.Command {
	root := group("postern", "Prove who signs in. See what they do.")
	root.SilenceErrors, root.SilenceUsage = true, true
	version := root.Flags().BoolP("version", "v", false, "version for postern") // cobra would write it by a template
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *version {
			return a.done(nil, "postern %s\n", system.ThisBuild())
		}
		return cmd.Help()
	}
	root.SetGlobalNormalizationFunc(flagName)
	root.PersistentFlags().StringVar(&a.state, "state",
		"", "state `DIRECTORY` (default $POSTERN_STATE, /var/lib/postern for root, else $XDG_STATE_HOME/postern)")
	root.AddCommand(serverCommands(a)...)
	root.AddCommand(newOTP(a), newSSH(a), newTrace(a), newAgent(a), newJoin(a), newLeave(a), newLog(a), newWitness(a),
		newVersion(a))
	root.AddCommand(manual.Topics()...)
	addHelp(root, root.Name())
	usage.Explain(root)
	return root
}

// required marks flags without which a command cannot do anything.
func required(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// flagName returns the name of a flag: --output is the old spelling of some commands.
func flagName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "output" {
		name = "out"
	}
	return pflag.NormalizedName(name)
}

// group returns a command that only holds others: alone it prints its help, and
// a word it does not know is a usage error.
func group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(cmds...)
	return c
}

// printer is where a command prints.
func (a *app) printer() terminal.Printer {
	return terminal.Printer{Out: a.out, Err: a.err, Screen: a.screen}
}

// done says what was done, unless it failed.
func (a *app) done(err error, format string, args ...any) error {
	if err == nil {
		_, err = fmt.Fprintf(a.out, format, args...)
	}
	return err
}

// hidden hides a command: one that has moved to another group, or that no person runs.
func hidden(cmd *cobra.Command) *cobra.Command {
	cmd.Hidden = true
	return cmd
}

func newVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *asJSON {
			return terminal.JSON(a.out, system.ThisBuild())
		}
		return a.done(nil, "postern %s\n", system.ThisBuild())
	}
	return cmd
}
