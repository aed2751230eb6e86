package cli

import (
	"context"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// listCommand makes cmd print what get returns of what is opened: as rows below a
// header, or as JSON.
func listCommand[S, T any](
	a *app, cmd *cobra.Command, open opener[S], header string,
	get func(context.Context, S, []string) ([]T, error), row func(T) []string,
) *cobra.Command {
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(open, func(ctx context.Context, s S, args []string) error {
		list, err := get(ctx, s, args)
		if err != nil {
			return err
		}
		return terminal.List(a.printer(), list, *asJSON, header, row)
	})
	return cmd
}

// showCommand makes cmd print the one thing that get returns of what is opened: as
// fields, or as JSON.
func showCommand[S, T any](
	a *app, cmd *cobra.Command, open opener[S],
	get func(context.Context, S, []string) (T, error), fields func(T) []terminal.Field,
) *cobra.Command {
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(open, func(ctx context.Context, s S, args []string) error {
		v, err := get(ctx, s, args)
		if err != nil {
			return err
		}
		return a.printer().Fields(v, *asJSON, fields(v)...)
	})
	return cmd
}

// fileCommand makes cmd write what get returns of what is opened to where --out says.
func fileCommand[S any](
	a *app, cmd *cobra.Command, open opener[S], get func(context.Context, S, []string) ([]byte, error),
) *cobra.Command {
	var out string
	cmd.RunE = on(open, func(ctx context.Context, s S, args []string) error {
		data, err := get(ctx, s, args)
		if err != nil {
			return err
		}
		return a.print(out, data)
	})
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE`, replaced as a whole; - is standard output, the default")
	return cmd
}

// jsonFlag adds --json, which every command that reads something has.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON, one object a line")
}
