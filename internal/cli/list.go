package cli

import (
	"context"

	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// listCommand makes cmd print what get returns from the state: as rows below a
// header, or as JSON.
func listCommand[T any](
	a *app, cmd *cobra.Command, header string,
	get func(context.Context, *state.State, []string) ([]T, error), row func(T) []string,
) *cobra.Command {
	var asJSON bool
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withState(cmd.Context(), func(st *state.State) error {
			list, err := get(cmd.Context(), st, args)
			if err != nil {
				return err
			}
			return terminal.List(a.printer(), list, asJSON, header, row)
		})
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// showCommand makes cmd print the one thing that get returns from the state: as
// fields, or as JSON.
func showCommand[T any](
	a *app, cmd *cobra.Command,
	get func(context.Context, *state.State, []string) (T, error), fields func(T) []terminal.Field,
) *cobra.Command {
	var asJSON bool
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withState(cmd.Context(), func(st *state.State) error {
			v, err := get(cmd.Context(), st, args)
			if err != nil {
				return err
			}
			return a.printer().Fields(v, asJSON, fields(v)...)
		})
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
