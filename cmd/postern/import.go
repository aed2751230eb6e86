package main

import "github.com/spf13/cobra"

func newImport(a *app) *cobra.Command {
	return group("import", "Carry over another server's configuration")
}
