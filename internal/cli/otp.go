//go:build !noserver

package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// otpCommands returns the commands of otp that work on a server's own keys.
func otpCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newOTPAdd(a), newOTPList(a), newOTPShow(a), newOTPAssign(a),
		newOTPStatus(a, "disable", postern.CredentialDisabled,
			"Refuse the codes of a key or authenticator until it is enabled"),
		newOTPStatus(a, "enable", postern.CredentialActive,
			"Accept the codes of a disabled key or authenticator again"),
		newOTPStatus(a, "revoke", postern.CredentialRevoked, "Refuse the codes of a key or authenticator for good"),
		newOTPImport(a), newOTPExport(a),
		newOTPShortCodes(a, postern.TOTP), newOTPShortCodes(a, postern.HOTP), newOTPBackupCodes(a),
		newOTPClient(a), newOTPUpstream(a), newOTPSync(a), newOTPRestored(a),
	}
}

func newOTPList(a *app) *cobra.Command {
	var page store.Page
	cmd := listCommand(a, "list", "List YubiKeys and authenticators", a.withOTP,
		"ID KIND PERSON STATUS SECRET LAST-USED LABEL",
		func(ctx context.Context, keys *store.OTP, _ []string) ([]otp.Credential, error) {
			return keys.Credentials(ctx, page)
		}, func(c otp.Credential) []string {
			used := cmp.Or(terminal.Time(c.LastUsed), "never")
			return []string{c.ID, string(c.Kind), c.Person, string(c.Status), c.Secret, used, c.Label}
		})
	cmd.Flags().StringVar(&page.Person, "person", "", "only those of this `PERSON`")
	cmd.Flags().StringVar(&page.After, "after", "", "only those behind `ID`, the last one of the page before")
	cmd.Flags().IntVarP(&page.Limit, "limit", "n", 0, "at most `N`; 0 means all")
	return cmd
}

func newOTPShow(a *app) *cobra.Command {
	return showCommand(a, "show ID", "Show a key or authenticator", a.withOTP,
		func(ctx context.Context, keys *store.OTP, args []string) (otp.Credential, error) {
			return keys.Credential(ctx, args[0])
		}, otpFields)
}

func otpFields(c otp.Credential) []terminal.Field {
	serial := ""
	if c.Serial != 0 {
		serial = strconv.FormatInt(c.Serial, 10)
	}
	return []terminal.Field{
		{"id", c.ID},
		{"kind", string(c.Kind)},
		{"person", c.Person},
		{"label", c.Label},
		{"status", string(c.Status)},
		{"secret", c.Secret},
		{"serial", serial},
		{"last code", c.LastCode()},
		{"added", terminal.Time(c.Created)},
		{"last used", terminal.Time(c.LastUsed)},
	}
}

// newOTPStatus makes one of the commands that change a key's status.
func newOTPStatus(a *app, use string, status postern.CredentialStatus, short string) *cobra.Command {
	var code string
	cmd := command(use+" ID", short, a.withOTP, func(ctx context.Context, keys *store.OTP, args []string) error {
		if code != "" {
			return a.done(keys.EnableWithCode(ctx, postern.Actor{}, args[0], code), "enabled %s\n", args[0])
		}
		return a.done(keys.SetStatus(ctx, postern.Actor{}, args[0], status), "%sd %s\n", use, args[0])
	})
	if status == postern.CredentialActive {
		cmd.Flags().StringVar(&code, "code", "", "a `CODE` that the YubiKey makes now")
	}
	return cmd
}

func newOTPAssign(a *app) *cobra.Command {
	var person string
	cmd := command("assign ID", "Give a YubiKey to a person", a.withOTP,
		func(ctx context.Context, keys *store.OTP, args []string) error {
			err := keys.AssignKey(ctx, args[0], person)
			return a.done(err, "%s is now assigned to %s\n", args[0], cmp.Or(person, "no person"))
		})
	cmd.Flags().StringVar(&person, "person", "", "the `PERSON` who holds the key from now on")
	return cmd
}

func newOTPExport(a *app) *cobra.Command {
	var out, what string
	cmd := plain("export", "Write all keys, or their counters, for another server",
		func(ctx context.Context, _ []string) error {
			return a.otpExport(ctx, what, out)
		})
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` to make, mode 0600; - is standard output")
	cmd.Flags().StringVar(&what, "what", "keys", "`WHAT` to write: keys or counters")
	return cmd
}

func (a *app) otpExport(ctx context.Context, what, out string) error {
	switch what {
	case "keys":
	case "counters":
		if out == "" {
			out = "-" // no secret
		}
	default:
		return postern.Errorf(postern.Invalid, "--what is keys or counters")
	}
	if err := a.secretTarget(out); err != nil {
		return err
	}
	return a.withOTP(ctx, func(keys *store.OTP) error {
		get, write := keys.Export, otp.WriteKSM
		if what == "counters" {
			get, write = func(ctx context.Context) ([]*otp.Key, error) { return keys.Keys(ctx, "") }, otp.WriteVal
		}
		all, err := get(ctx)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := write(&text, all); err != nil {
			return err
		}
		return a.secretOut(out, text.Bytes())
	})
}

func newOTPRestored(a *app) *cobra.Command {
	var how people.Restored
	cmd := command("restored", "Go on with a state that was restored", a.withState,
		func(ctx context.Context, st *state.State, _ []string) error {
			off, err := how.Accept(ctx, st)
			return a.done(err, "%s\n", off)
		})
	cmd.Flags().BoolVar(&how.Trust, "trust", false, "disable nothing")
	cmd.Flags().BoolVar(&how.Force, "force", false, "although nothing shows that the state was restored")
	return cmd
}

// otpVerify checks the code as the server does.
func (a *app) otpVerify(ctx context.Context, o otpVerifyOptions, code string) error {
	return a.withOneTime(ctx, func(one *server.OneTime) error {
		attempt := otp.Attempt{User: o.person, Code: code, Service: "command line"}
		check := one.Checker.Identify
		if o.person != "" {
			check = one.Checker.Check
		}
		proof, err := check(ctx, attempt)
		return a.printVerdict(proof, *o.json, err)
	})
}

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
		text, err := a.prompt().Read(o.people)
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
