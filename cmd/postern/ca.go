package main

import "github.com/spf13/cobra"

func newCA(a *app) *cobra.Command {
	return group("ca", "Certificates: issue, renew, revoke, export")
}
