package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// shortCodes is what otp totp and otp hotp were told.
type shortCodes struct {
	kind                       postern.CredentialKind
	person, label, issuer, out string
	unchecked                  bool
}

func newOTPShortCodes(a *app, kind postern.CredentialKind) *cobra.Command {
	o := shortCodes{kind: kind}
	what := map[postern.CredentialKind]string{postern.TOTP: "an app that makes codes by time (TOTP)", postern.HOTP: "a device that makes codes by counting (HOTP)"}[kind]
	cmd := &cobra.Command{
		Use:   string(kind) + " --person PERSON",
		Short: "Give a person " + what,
		Long: "Give a person " + what + `. The secret is shown once, as a QR code
on the terminal, or with --out written to a file: a PNG image if its name ends in
.png, an SVG image for .svg, else the otpauth: URL. Then the first code is asked
for, to see that both sides agree, and used up.`,
		Example: "  postern otp " + string(kind) + " --person alice --label phone",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.person == "" {
				return postern.Errorf(postern.Invalid, "whose is it?").WithHint("give --person")
			}
			return a.otpShortCodes(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.person, "person", "", "the `PERSON` who holds it")
	f.StringVar(&o.label, "label", "", "a `NAME` for it, in the person's own words")
	f.StringVar(&o.issuer, "issuer", "Postern", "the `NAME` that the app shows")
	f.StringVarP(&o.out, "out", "o", "", "write the secret to `FILE`, mode 0600; - is standard output, as a URL")
	f.BoolVar(&o.unchecked, "no-check", false, "do not ask for the first code")
	return cmd
}

func (a *app) otpShortCodes(ctx context.Context, o shortCodes) error {
	if err := a.secretTarget(o.out); err != nil {
		return err
	}
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		if _, err := st.Store.Person(ctx, o.person); err != nil {
			return err
		}
		d := otp.NewOATH(o.kind, o.person, o.label)
		if err := a.showOATH(o, d); err != nil {
			return err
		}
		if !o.unchecked {
			code, err := a.typed("-", "Its first code: ")
			if err != nil {
				return err
			}
			moving, ok := d.Match(strings.Join(strings.Fields(code), ""), time.Now())
			if !ok {
				return postern.Errorf(postern.Denied, "that is not its code; nothing was added").WithHint("see that its clock is right, and begin again")
			}
			d.Moving = moving
		}
		if err := keys.AddOATH(ctx, postern.Actor{}, d); err != nil {
			return err
		}
		if o.out != "-" {
			fmt.Fprintf(a.out, "added %s %s\n", d.Kind, d.ID)
		}
		return nil
	})
}

// showOATH shows the secret, once.
func (a *app) showOATH(o shortCodes, d *otp.OATH) error {
	url := d.URL(o.issuer)
	qr, err := otp.NewQR(url)
	if err != nil {
		return err
	}
	switch {
	case o.out == "":
		return a.secretOut("", []byte(qr.Terminal()+"\n"+url+"\n"))
	case strings.HasSuffix(o.out, ".png"):
		return a.secretOut(o.out, qr.PNG())
	case strings.HasSuffix(o.out, ".svg"):
		return a.secretOut(o.out, []byte(qr.SVG()))
	}
	return a.secretOut(o.out, []byte(url+"\n"))
}

func newOTPRecovery(a *app) *cobra.Command {
	var person, out string
	cmd := &cobra.Command{
		Use:   "recovery --person PERSON",
		Short: "Give a person ten recovery codes",
		Long: `Make ten recovery codes, each good once in the place of a YubiKey's code, for the
day when the key is in the other jacket. They are printed once; only hashes are
kept. Earlier ones stop working.`,
		Example: "  postern otp recovery --person alice --out alice.txt",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if person == "" {
				return postern.Errorf(postern.Invalid, "whose are they?").WithHint("give --person")
			}
			if err := a.secretTarget(out); err != nil {
				return err
			}
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
				codes, hashes := otp.NewRecoveryCodes(person)
				if err := keys.SetRecovery(cmd.Context(), postern.Actor{}, person, hashes); err != nil {
					return err
				}
				return a.secretOut(out, []byte(strings.Join(codes, "\n")+"\n"))
			})
		},
	}
	cmd.Flags().StringVar(&person, "person", "", "the `PERSON` who gets them")
	cmd.Flags().StringVarP(&out, "out", "o", "", "write them to `FILE`, mode 0600; - is standard output")
	return cmd
}
