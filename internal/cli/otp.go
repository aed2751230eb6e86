//go:build !noserver

package cli

import (
	"bytes"
	"cmp"
	"context"
	"strconv"

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
