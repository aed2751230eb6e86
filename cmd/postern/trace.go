package main

import "github.com/spf13/cobra"

func newTrace(a *app) *cobra.Command {
	return group("trace", "Watch libvirt")
}
