package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make a state directory: CAs, log key, database",
		Long: `Make what is missing of the state directory: the key-encrypting key, the
database and the timeline with its key. What is there stays as it is.`,
		Example: "  postern init --state /var/lib/postern",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context()) },
	}
}

func (a *app) init(ctx context.Context) error {
	st, err := a.create(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	fmt.Fprintf(a.out, "the state is in %s\n", st.Dir)
	return nil
}
