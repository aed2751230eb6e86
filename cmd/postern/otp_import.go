package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPImport(a *app) *cobra.Command {
	var format, person string
	var replace bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take over keys, counters and API clients from elsewhere",
		Long: `Import YubiKeys, the counters of their last codes, and API clients. FILE, or - for
standard input, is one of
  - the key file of yubikey-ksm (# ykksm 1),
  - the log of ykman (-O) or of the personalization tools: Yubico's format, the
    traditional one and PSKC; the flexible one with --format as it was set there,
  - what ykval-export or ykval-export-clients of yubikey-val wrote,
  - an SQL dump of yubikey-val, yubikey-ksm or yubiserver (SQLite, MySQL,
    PostgreSQL).
It is imported whole or not at all. Counters only ever rise, so no code that was
used elsewhere before can be used here again: import the counters before the
first code is checked here, and switch the old server off.`,
		Example: `  postern otp import keys.csv
  gpg --decrypt keys.asc | postern otp import -
  ykval-export | postern otp import -`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := a.readImport(args[0], format)
			if err != nil {
				return err
			}
			return a.otpImport(cmd.Context(), im, person, replace)
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "the personalization tool's flexible `FORMAT`: {serial},{pubIdTxt},{pvtIdTxt},{secretKeyTxt}")
	f.StringVar(&person, "person", "", "the `PERSON` whose all the keys are")
	f.BoolVar(&replace, "replace", false, "give keys that are known already the secrets of the file")
	return cmd
}

func (a *app) readImport(path, format string) (*otp.Import, error) {
	var in io.Reader = a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, postern.Errorf(postern.NotFound, "%w", err)
		}
		defer f.Close()
		in = f
	}
	return otp.ReadImport(in, format)
}

func (a *app) otpImport(ctx context.Context, im *otp.Import, person string, replace bool) error {
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		for _, k := range im.Keys {
			k.Person = person
		}
		if err := keys.Import(ctx, im, replace); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "imported %d keys, %d counters, %d API clients\n", len(im.Keys), len(im.Counters), len(im.Clients))
		for _, s := range im.Skipped {
			fmt.Fprintf(a.err, "line %d: skipped: %s\n", s.Line, s.Why)
		}
		return nil
	})
}

func newOTPExport(a *app) *cobra.Command {
	var out, what string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all keys, or their counters, for another server",
		Long: `Write all YubiKeys in the format of yubikey-ksm's key file, with their secrets, or
with --what counters what yubikey-val imports. Both are read again by postern otp
import. Slots' access codes are not known here and come out as none.`,
		Example: `  postern otp export --out keys.csv
  postern otp export --out - | gpg --encrypt --recipient backup > keys.asc
  postern otp export --what counters > counters.csv`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.otpExport(cmd.Context(), what, out)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` to make, mode 0600; - is standard output")
	cmd.Flags().StringVar(&what, "what", "keys", "`WHAT` to write: keys or counters")
	return cmd
}

func (a *app) otpExport(ctx context.Context, what, out string) error {
	write := map[string]func(io.Writer, []*otp.Key) error{"keys": otp.WriteKSM, "counters": otp.WriteVal}[what]
	if write == nil {
		return postern.Errorf(postern.Invalid, "--what is keys or counters")
	}
	if what == "keys" {
		if err := a.secretTarget(out); err != nil {
			return err
		}
	} else if out == "" {
		out = "-"
	}
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		all, err := keys.Keys(ctx, "")
		if err != nil {
			return err
		}
		if out == "" || out == "-" {
			return write(a.out, all)
		}
		var text bytes.Buffer
		if err := write(&text, all); err != nil {
			return err
		}
		if err := a.newSecretFile(out, text.Bytes()); err != nil {
			return err
		}
		return keys.Exported(ctx, len(all))
	})
}
