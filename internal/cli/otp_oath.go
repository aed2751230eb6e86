package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// shortCodes is what otp totp and otp hotp were told.
type shortCodes struct {
	kind                               postern.CredentialKind
	person, label, issuer, out, secret string
	algorithm                          string
	digits                             int
	period                             time.Duration
	counter                            int64
	unchecked                          bool
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
for, to see that both sides agree, and used up.

With --secret an existing secret is taken over, as a hardware token's; it is not
shown again. Not every app knows other algorithms, digits and periods than the
default ones.`,
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
	f.StringVar(&o.secret, "secret", "", "take the secret, in base32 or hexadecimal, from `FILE`; - asks for it, or is standard input")
	f.StringVar(&o.algorithm, "algorithm", "SHA1", "`HASH`: SHA1, SHA256 or SHA512")
	f.IntVar(&o.digits, "digits", 6, "`NUMBER` of digits of a code: 6 to 8")
	if kind == postern.TOTP {
		f.DurationVar(&o.period, "period", 30*time.Second, "how long a code is shown: a `DURATION` of 15s to 5m")
	} else {
		f.Int64Var(&o.counter, "counter", 0, "the `NUMBER` of codes that were made already")
	}
	return cmd
}

func (a *app) otpShortCodes(ctx context.Context, o shortCodes) error {
	d, err := a.newOATH(o)
	if err != nil {
		return err
	}
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		if _, err := st.Store.People().Person(ctx, o.person); err != nil {
			return err
		}
		if o.secret == "" || o.out != "" {
			if err := a.showOATH(o, d); err != nil {
				return err
			}
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

// newOATH returns the authenticator that the flags describe, with a fresh secret
// or the one that is given.
func (a *app) newOATH(o shortCodes) (*otp.OATH, error) {
	d := otp.NewOATH(o.kind, o.person, o.label)
	d.Hash, d.Digits, d.Period, d.Moving = otp.HashName(o.algorithm), o.digits, o.period, o.counter-1
	if o.secret == "" {
		if err := a.secretTarget(o.out); err != nil {
			return nil, err
		}
		return d, d.Validate()
	}
	line, err := a.secretLine(o)
	if err != nil {
		return nil, err
	}
	if d.Secret = otp.DecodeSecret(line); d.Secret == nil {
		return nil, postern.Errorf(postern.Invalid, "the secret is neither base32 nor hexadecimal")
	}
	return d, d.Validate()
}

// secretLine reads the secret that is given.
func (a *app) secretLine(o shortCodes) (string, error) {
	if o.secret != "-" {
		line, err := a.passwordFile(o.secret)
		return string(line), err
	}
	if !o.unchecked && !terminal.IsTerminal(a.in) {
		return "", postern.Errorf(postern.Invalid, "standard input has the secret, so the first code cannot be asked for").
			WithHint("give --no-check, or the secret in a file")
	}
	return a.typed("-", "Its secret: ")
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
