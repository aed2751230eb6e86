package main

import (
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

//go:generate go run . man ../../man

// newMan returns the command that writes the manual pages. It is for those who
// build Postern, and in no list.
func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return postern.Errorf(postern.Unavailable, "%w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			root.InitDefaultCompletionCmd()
			day := time.Unix(0, 0).UTC() // the pages are committed: what they say does not depend on the day
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Postern", Manual: "Postern", Date: &day}, args[0])
		},
	}
}
