package cli

import (
	"context"

	"github.com/postern-project/postern/internal/system"
	"github.com/spf13/cobra"
)

// opener opens what a command works on, does something with it, and closes it.
type opener[S any] func(ctx context.Context, do func(S) error) error

// on returns what a command runs that works on what is opened.
func on[S any](open opener[S], do func(context.Context, S, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return open(cmd.Context(), func(s S) error { return do(cmd.Context(), s, args) })
	}
}

// withNothing is for commands that open nothing.
func withNothing(_ context.Context, do func(struct{}) error) error { return do(struct{}{}) }

// stateDir returns the state directory that --state and the environment name.
func (a *app) stateDir() (string, error) { return system.StateDir(a.state) }

// withDir names the state directory, whether it is there or not.
func (a *app) withDir(_ context.Context, do func(dir string) error) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	return do(dir)
}
