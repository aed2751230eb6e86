package main

import "github.com/spf13/cobra"

func newUser(a *app) *cobra.Command {
	return group("user", "People, and what they hold")
}
