//go:build !noserver

package cli

import (
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// otpAdd has the flags of otp add.
type otpAdd struct {
	person, label, publicID, out string
	slot                         int
	serial                       int64
	touch                        bool
}

func newOTPAdd(a *app) *cobra.Command {
	var o otpAdd
	cmd := plain("add --person PERSON", "Give a YubiKey to a person", func(ctx context.Context, _ []string) error {
		switch {
		case o.slot != 1 && o.slot != 2:
			return postern.Errorf(postern.Invalid, "a YubiKey has the slots 1 and 2")
		case o.touch:
			return a.otpTouch(ctx, o)
		}
		return a.otpAdd(ctx, o)
	})
	f := cmd.Flags()
	f.StringVar(&o.person, "person", "", "the `PERSON` who holds the key")
	f.StringVar(&o.label, "label", "", "a `NAME` for the key, in the person's own words")
	f.StringVar(&o.publicID, "public-id", "", "the key's public ID, 12 letters of `MODHEX` (default: a random one)")
	f.Int64Var(&o.serial, "serial", 0, "the key's serial `NUMBER`, as printed on it")
	f.IntVar(&o.slot, "slot", 2,
		"the `SLOT` to write: 1 is a short touch, 2 a long one; new keys have YubiCloud's secret in 1")
	f.BoolVar(&o.touch, "touch", false, "keep the key's secret: register it by a touch")
	f.StringVarP(&o.out, "out", "o", "",
		"write the command and the secret as a script to `FILE`, mode 0600; - is standard output")
	required(cmd, "person")
	cmd.MarkFlagsMutuallyExclusive("touch", "out")
	cmd.MarkFlagsMutuallyExclusive("touch", "public-id")
	return cmd
}

func (a *app) otpAdd(ctx context.Context, o otpAdd) error {
	if err := a.secretTarget(o.out); err != nil {
		return err
	}
	k, err := otp.NewKey(o.publicID)
	if err != nil {
		return err
	}
	k.Person, k.Label, k.Serial = o.person, o.label, o.serial
	return a.withState(ctx, func(st *state.State) error {
		if _, err := st.Store.People().Person(ctx, o.person); err != nil {
			return err
		}
		if err := st.Store.OTP().AddKeys(ctx, postern.Actor{}, []*otp.Key{k}, false); err != nil {
			return err
		}
		if o.out == "" {
			return a.secretOut("", []byte(k.YkmanWords(o.slot)))
		}
		err := a.secretOut(o.out, []byte(k.YkmanScript(o.slot)))
		if o.out == "-" {
			return err
		}
		return a.done(err, "added %s; where the key is plugged in, run\n\n    sh %s && shred -u %s\n",
			k.PublicID, o.out, o.out)
	})
}

// otpTouch registers a key by one of its codes.
func (a *app) otpTouch(ctx context.Context, o otpAdd) error {
	return a.withOneTime(ctx, func(one *server.OneTime) error {
		code, err := a.prompt().Line("Touch the key: ")
		if err != nil {
			return err
		}
		id, err := one.Checker.Register(ctx, one.Keys, otp.Registration{Person: o.person, Typed: code, Label: o.label})
		if postern.CodeOf(err) == postern.Denied {
			return postern.Errorf(postern.Denied, "the key was not accepted").
				WithHint("see postern log list for the reason; a key that is not known here needs postern otp " +
					"upstream set")
		}
		return a.done(err, "%s is now %s's\n", id, o.person)
	})
}

// shortCodes has the flags of otp totp and otp hotp.
type shortCodes struct {
	app                 *otp.OATH
	issuer, out, secret string
	counter             int64
	unchecked           bool
}

func newOTPShortCodes(a *app, kind postern.CredentialKind) *cobra.Command {
	o := shortCodes{app: otp.NewOATH(kind, "", "")}
	what := map[postern.CredentialKind]string{
		postern.TOTP: "an app that makes codes by time (TOTP)",
		postern.HOTP: "an authenticator that makes codes by counting (HOTP)",
	}[kind]
	cmd := plain(string(kind)+" --person PERSON", "Give a person "+what,
		func(ctx context.Context, _ []string) error { return a.otpShortCodes(ctx, o) })
	f := cmd.Flags()
	f.StringVar(&o.app.Person, "person", "", "the `PERSON` who holds it")
	f.StringVar(&o.app.Label, "label", "", "a `NAME` for it, in the person's own words")
	f.StringVar(&o.issuer, "issuer", "Postern", "the `NAME` that the app shows")
	f.StringVarP(&o.out, "out", "o", "", "write the secret to `FILE`, mode 0600; - is standard output, as a URL")
	f.BoolVar(&o.unchecked, "no-check", false, "do not ask for the first code")
	f.StringVar(&o.secret, "secret", "",
		"take the secret, in base32 or hexadecimal, from `FILE`; - asks for it, or is standard input")
	f.StringVar(&o.app.Hash, "algorithm", "SHA1", "`HASH`: SHA1, SHA256 or SHA512")
	f.IntVar(&o.app.Digits, "digits", 6, "`NUMBER` of digits of a code: 6 to 8")
	required(cmd, "person")
	if kind == postern.TOTP {
		f.DurationVar(&o.app.Period, "period", 30*time.Second, "how long a code is shown: a `DURATION` of 15s to 5m")
	} else {
		f.Int64Var(&o.counter, "counter", 0, "the `NUMBER` of codes that were made already")
	}
	return cmd
}

func (a *app) otpShortCodes(ctx context.Context, o shortCodes) error {
	if err := a.readOATH(&o); err != nil {
		return err
	}
	return a.withState(ctx, func(st *state.State) error {
		if _, err := st.Store.People().Person(ctx, o.app.Person); err != nil {
			return err
		}
		if o.secret == "" || o.out != "" {
			if err := a.showOATH(o); err != nil {
				return err
			}
		}
		if !o.unchecked {
			code, err := a.prompt().Line("Its first code: ")
			if err != nil {
				return err
			}
			if err := o.app.Confirm(code, time.Now()); err != nil {
				return err
			}
		}
		if err := st.Store.OTP().AddOATH(ctx, postern.Actor{}, o.app); err != nil {
			return err
		}
		if o.out == "-" {
			return nil
		}
		return a.done(nil, "added %s %s\n", o.app.Kind, o.app.ID)
	})
}

// readOATH completes the authenticator that the flags describe: its secret is a
// fresh one, or the one that is given.
func (a *app) readOATH(o *shortCodes) error {
	o.app.Hash, o.app.Moving = otp.HashName(o.app.Hash), o.counter-1
	if o.secret == "" {
		if err := a.secretTarget(o.out); err != nil {
			return err
		}
		return o.app.Validate()
	}
	line, err := a.secretLine(*o)
	if err != nil {
		return err
	}
	if err := o.app.TakeSecret(line); err != nil {
		return err
	}
	return o.app.Validate()
}

// secretLine reads the secret that is given.
func (a *app) secretLine(o shortCodes) (string, error) {
	switch {
	case o.secret != "-":
		line, err := a.prompt().FirstLine(o.secret)
		return string(line), err
	case !o.unchecked && !terminal.IsTerminal(a.in):
		return "",
			postern.Errorf(postern.Invalid, "standard input has the secret, so the first code cannot be asked for").
				WithHint("give --no-check, or the secret in a file")
	}
	return a.prompt().Line("Its secret: ")
}

// showOATH shows the secret, once: on a terminal with its QR code before it.
func (a *app) showOATH(o shortCodes) error {
	text, err := o.app.File(o.out, o.issuer)
	if err != nil {
		return err
	}
	if o.out == "" {
		qr, err := otp.NewQR(o.app.URL(o.issuer))
		if err != nil {
			return err
		}
		text = append([]byte(qr.Terminal()+"\n"), text...)
	}
	return a.secretOut(o.out, text)
}

func newOTPBackupCodes(a *app) *cobra.Command {
	var person, out string
	cmd := &cobra.Command{
		Use:     "backup-codes --person PERSON",
		Aliases: []string{"recovery"},
		Short:   "Give a person ten backup codes",
		RunE: on(a.withOTP, func(ctx context.Context, keys *store.OTP, _ []string) error {
			if err := a.secretTarget(out); err != nil {
				return err
			}
			codes, hashes := otp.NewBackupCodes(person)
			if err := keys.SetBackupCodes(ctx, postern.Actor{}, person, hashes); err != nil {
				return err
			}
			return a.secretOut(out, []byte(strings.Join(codes, "\n")+"\n"))
		}),
	}
	cmd.Flags().StringVar(&person, "person", "", "the `PERSON` who gets them")
	required(cmd, "person")
	cmd.Flags().StringVarP(&out, "out", "o", "", "write them to `FILE`, mode 0600; - is standard output")
	return cmd
}
