package main

import "github.com/spf13/cobra"

func newLog(a *app) *cobra.Command {
	return group("log", "The timeline: list, follow, verify, prove")
}
