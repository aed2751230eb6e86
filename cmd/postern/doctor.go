package main

import "github.com/spf13/cobra"

func newDoctor(a *app) *cobra.Command {
	return group("doctor", "Say what is wrong on this host, and what mends it")
}
