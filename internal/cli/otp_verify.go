package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTP(a *app) *cobra.Command {
	return group("otp", "YubiKeys and other one-time passwords",
		append(otpCommands(a), newOTPVerify(a), newOTPToken(a))...)
}

// otpVerdict is what otp verify says.
type otpVerdict struct {
	OK         bool         `json:"ok"`
	Person     string       `json:"person,omitempty"`
	Credential postern.Link `json:"credential,omitzero"`
	Reason     string       `json:"reason,omitempty"`
}

// keyFileUsage is what --key-file takes, wherever an API client's key is needed.
const keyFileUsage = "`FILE` with the API client's key: in base64, or as postern otp client add writes it; - is " +
	"standard input"

// otpVerifyOptions are the flags of otp verify.
type otpVerifyOptions struct {
	person  string
	service otp.ClientConfig // ask this service instead, if it has a URL
	keyFile string
	ca      string
	json    *bool
}

func newOTPVerify(a *app) *cobra.Command {
	var o otpVerifyOptions
	cmd := plain("verify CODE", "Check one code, and use it up", func(ctx context.Context, args []string) error {
		code := args[0]
		if code == "-" {
			if o.keyFile == "-" {
				return postern.Errorf(postern.Invalid, "standard input cannot be both the code and the key").
					WithHint("give the key in a file")
			}
			var err error
			if code, err = a.prompt().Line("Touch the key: "); err != nil {
				return err
			}
		}
		if len(o.service.URLs) > 0 {
			return a.otpVerifyAt(ctx, o, code)
		}
		return a.otpVerify(ctx, o, code)
	})
	f := cmd.Flags()
	f.StringVar(&o.person, "person", "", "the `PERSON` whom the code must prove")
	f.StringArrayVar(&o.service.URLs, "url", nil, "ask the validation service at this `URL`; can be repeated")
	f.Int64Var(&o.service.ID, "id",
		0, "with --url, the API client's `NUMBER` there (default: the one in the key's file)")
	f.StringVar(&o.keyFile, "key-file", "", "with --url, the "+keyFileUsage)
	f.StringVar(&o.ca, "ca", "",
		"with --url, trust it by the certificates in this `FILE`, PEM (default: the system's)")
	cmd.MarkFlagsRequiredTogether("url", "key-file")
	cmd.MarkFlagsMutuallyExclusive("url", "person")
	o.json = jsonFlag(cmd)
	return cmd
}

// apiKey reads the key of an API client, and its number unless that is known.
func (a *app) apiKey(c *otp.ClientConfig, file string) error {
	text, err := a.prompt().Read(file)
	if err != nil {
		return err
	}
	if err := c.TakeKey(text); err != nil {
		return postern.Errorf(postern.Invalid, "%s: %w", file, err).WithHint("%s", postern.HintOf(err))
	}
	return nil
}

// otpVerifyAt has a validation service check the code.
func (a *app) otpVerifyAt(ctx context.Context, o otpVerifyOptions, code string) (err error) {
	if err := a.apiKey(&o.service, o.keyFile); err != nil {
		return err
	}
	if o.service.Roots, err = client.ReadRoots(o.ca); err != nil {
		return err
	}
	proof := otp.Proof{Credential: postern.Link{Kind: string(postern.YubiKey)}}
	proof.Credential.ID, err = client.Verify(ctx, o.service, code)
	if postern.CodeOf(err) == postern.Denied {
		proof = otp.Proof{Reason: err.Error()}
	}
	return a.printVerdict(proof, *o.json, err)
}

// printVerdict prints what was found out about a code: who made it, why it is refused, or
// the error for which it could not be checked.
func (a *app) printVerdict(p otp.Proof, asJSON bool, err error) error {
	if p.Reason != "" {
		err = postern.Errorf(postern.Denied, "refused: %s", p.Reason)
	}
	if asJSON && (err == nil || p.Reason != "") {
		return cmp.Or(terminal.JSON(a.out, otpVerdict{err == nil, p.Person, p.Credential, p.Reason}), err)
	}
	return a.done(err, "good: %s %s of %s\n", p.Credential.Kind, p.Credential.ID, terminal.Dash(p.Person))
}

func newOTPToken(a *app) *cobra.Command {
	return group("token", "A YubiKey in software, for tests and trials",
		newOTPTokenNew(a), newOTPTokenTouch(a), newOTPTokenPlug(a), newOTPTokenCSV(a))
}

func newOTPTokenNew(a *app) *cobra.Command {
	var publicID string
	cmd := plain("new FILE", "Make a software token", func(_ context.Context, args []string) error {
		t, err := client.NewToken(args[0], publicID)
		if err != nil {
			return err
		}
		return a.done(nil, "%s\n", t.PublicID)
	})
	cmd.Flags().StringVar(&publicID, "public-id", "", "its public ID in `MODHEX` (default: a random one)")
	return cmd
}

func newOTPTokenTouch(a *app) *cobra.Command {
	var n int
	cmd := plain("touch FILE", "Print the token's next code", func(_ context.Context, args []string) error {
		codes, err := client.Touch(args[0], n)
		for _, c := range codes {
			fmt.Fprintln(a.out, c)
		}
		return err
	})
	cmd.Flags().IntVarP(&n, "count", "n", 1, "print this `NUMBER` of codes")
	return cmd
}

func newOTPTokenPlug(a *app) *cobra.Command {
	return plain("plug FILE", "Unplug the token and plug it in again",
		func(_ context.Context, args []string) error { return client.PlugIn(args[0]) })
}

func newOTPTokenCSV(a *app) *cobra.Command {
	return plain("csv FILE", "Print the token's secret for otp import",
		func(_ context.Context, args []string) error {
			t, err := client.ReadToken(args[0])
			if err != nil {
				return err
			}
			return otp.WriteKSM(a.out, []*otp.Key{{PublicID: t.PublicID, Secret: &t.Secret}})
		})
}
