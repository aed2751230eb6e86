package main

import "github.com/spf13/cobra"

func newSSH(a *app) *cobra.Command {
	return group("ssh", "Two-factor SSH: audit, configure, sign")
}
