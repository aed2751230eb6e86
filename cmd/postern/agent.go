package main

import "github.com/spf13/cobra"

func newAgent(a *app) *cobra.Command {
	return group("agent", "Send what this host sees to a Postern server")
}
