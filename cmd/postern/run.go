package main

import "github.com/spf13/cobra"

func newRun(a *app) *cobra.Command {
	return group("run", "Serve the front door, portal and the rest")
}
