//go:build !noserver

package cli

import (
	"github.com/postern-project/postern/internal/manpage"
	"github.com/postern-project/postern/internal/manual"
	"github.com/postern-project/postern/internal/reference"
	"github.com/spf13/cobra"
)

// newMan returns the command that writes the manual pages. It is for those who
// build Postern, and in no list.
func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := reference.Rules()
			if err != nil {
				return err
			}
			pages := append(manual.Pages(cmd.Root()), reference.Caddyfile(), rules)
			return manpage.WriteAll(args[0], "Postern", manual.Released, pages)
		},
	}
}
