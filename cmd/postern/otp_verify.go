package main

import (
	"context"
	"fmt"

	"github.com/postern-project/postern/internal/server"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// otpVerdict is what otp verify says.
type otpVerdict struct {
	OK         bool         `json:"ok"`
	Person     string       `json:"person,omitempty"`
	Credential postern.Link `json:"credential,omitzero"`
	Reason     string       `json:"reason,omitempty"`
}

func newOTPVerify(a *app) *cobra.Command {
	var person string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify CODE",
		Short: "Check one code, and use it up",
		Long: `Check a code as a login would: against the keys here, else by the outside
validation service. CODE - reads it from standard input without echo. The code is
used up. Without --person it may be anybody's YubiKey; with it, it must be that
person's, and TOTP, HOTP and recovery codes are checked too.

The exit code is 0 for a good code, 3 for any other, with the reason in words, and
5 if it cannot be checked now.`,
		Example: `  postern otp verify -
  postern otp verify --person alice 123456`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := a.typed(args[0], "Touch the key: ")
			if err != nil {
				return err
			}
			return a.otpVerify(cmd.Context(), person, code, asJSON)
		},
	}
	cmd.Flags().StringVar(&person, "person", "", "the `PERSON` whom the code must prove")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) otpVerify(ctx context.Context, person, code string, asJSON bool) error {
	return a.withOneTime(ctx, func(st *state.State, ot *server.OneTime) error {
		attempt := otp.Attempt{User: person, Code: code, Service: "command line"}
		check := ot.Checker.Identify
		if person != "" {
			check = ot.Checker.Check
		}
		proof, err := check(ctx, attempt)
		if proof.Reason != "" {
			err = postern.Errorf(postern.Denied, "refused: %s", proof.Reason)
		}
		v := otpVerdict{OK: err == nil, Person: proof.Person, Credential: proof.Credential, Reason: proof.Reason}
		switch {
		case asJSON && (err == nil || proof.Reason != ""):
			if perr := terminal.JSON(a.out, v); perr != nil {
				return perr
			}
		case err == nil:
			fmt.Fprintf(a.out, "good: %s %s of %s\n", v.Credential.Kind, v.Credential.ID, terminal.Dash(v.Person))
		}
		return err
	})
}
