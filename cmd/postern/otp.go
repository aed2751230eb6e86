package main

import "github.com/spf13/cobra"

func newOTP(a *app) *cobra.Command {
	return group("otp", "YubiKeys and other one-time passwords")
}
