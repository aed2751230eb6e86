//go:build !noserver

package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// otpImport has the flags of otp import.
type otpImport struct {
	format, person, people, passphraseFile, keyFile string
	replace, skipBad                                bool
}

func newOTPImport(a *app) *cobra.Command {
	var o otpImport
	cmd := command("import FILE", "Take over keys, authenticators, counters and API clients from elsewhere",
		a.withState, func(ctx context.Context, st *state.State, args []string) error {
			return a.otpImport(ctx, st, args[0], o)
		})
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "",
		"the personalization tool's flexible `FORMAT`: {serial},{pubIdTxt},{pvtIdTxt},{secretKeyTxt}")
	f.StringVar(&o.person, "person", "", "the `PERSON` whose everything in the file is")
	f.StringVar(&o.people, "people", "",
		"`FILE` that says whose what is: lines of serial number, public ID or account, a comma, and person")
	f.StringVar(&o.passphraseFile, "passphrase-file", "",
		"`FILE` with the passphrase of an encrypted file (default: ask)")
	f.StringVar(&o.keyFile, "key", "", "`FILE` with the key of an encrypted PSKC file, in hexadecimal")
	f.BoolVar(&o.replace, "replace", false, "give keys that are known already the secrets of the file")
	f.BoolVar(&o.skipBad, "skip-bad", false, "import the rest where something cannot be taken over")
	cmd.MarkFlagsMutuallyExclusive("person", "people")
	return cmd
}

func (a *app) otpImport(ctx context.Context, st *state.State, path string, o otpImport) error {
	im, err := a.readImport(ctx, path, o)
	if err != nil {
		return err
	}
	var owners map[string]string
	if o.people != "" {
		text, err := a.readInput(o.people)
		if err != nil {
			return err
		}
		if owners, err = otp.ParseOwners(text); err != nil {
			return err
		}
	}
	person := func(name string) (string, error) { return st.Store.People().PersonNamed(ctx, name) }
	if err := im.Assign(o.person, owners, person); err != nil {
		return err
	}
	a.listSkipped(im)
	if err := im.Check(o.skipBad); err != nil {
		return err
	}
	end := terminal.Working(a.err, "importing")
	err = st.Store.OTP().Import(ctx, im, o.replace)
	end()
	return a.done(err, "imported %s, %s, %s, %s\n", terminal.Counted(len(im.Keys), "key"),
		terminal.Counted(len(im.OATH), "authenticator"), terminal.Counted(len(im.Counters), "counter"),
		terminal.Counted(len(im.Clients), "API client"))
}

func (a *app) readImport(ctx context.Context, path string, o otpImport) (*otp.Import, error) {
	options := otp.ImportOptions{Format: o.format, Password: func() ([]byte, error) {
		return a.prompt().Passphrase(o.passphraseFile, path)
	}}
	if o.keyFile != "" {
		line, err := a.prompt().FirstLine(o.keyFile)
		if err != nil {
			return nil, err
		}
		if options.Key, err = hex.DecodeString(strings.TrimSpace(string(line))); err != nil {
			return nil, postern.Errorf(postern.Invalid, "%s does not hold a key in hexadecimal", o.keyFile)
		}
	}
	if path == "-" {
		return otp.ReadImport(a.in, options)
	}
	return store.ReadImport(ctx, path, options)
}

// listSkipped lists what is not imported.
func (a *app) listSkipped(im *otp.Import) {
	for _, s := range im.Skipped {
		fmt.Fprintf(a.err, "%s: not imported: %s\n", s.Place, s.Why)
	}
	if im.Unlisted > 0 {
		fmt.Fprintf(a.err, "%s not imported\n", terminal.Counted(im.Unlisted, "more line"))
	}
}
