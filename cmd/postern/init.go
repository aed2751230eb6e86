package main

import "github.com/spf13/cobra"

func newInit(a *app) *cobra.Command {
	return group("init", "Make a state directory: CAs, log key, database")
}
