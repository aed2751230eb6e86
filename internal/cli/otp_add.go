package cli

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/postern-project/postern/internal/server"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// otpAdd is what otp add was told.
type otpAdd struct {
	person, label, publicID, out string
	slot                         int
	serial                       int64
	touch                        bool
}

func newOTPAdd(a *app) *cobra.Command {
	var o otpAdd
	cmd := &cobra.Command{
		Use:   "add --person PERSON",
		Short: "Give a YubiKey to a person",
		Long: `Make a fresh secret for a YubiKey and print the ykman command that burns it into
the key: from then on only this server can check its codes. The command is run
where the key is plugged in. It asks for the private ID and the key, which are
printed once, so that neither stands in the shell's history or the list of
processes. With --out they go into a script of mode 0600 instead; run it and
delete it.

With --touch the key stays as it is: touch it when asked. A key that is known
here (imported, say) is given to the person; any other is checked by the outside
validation service, which goes on to check its codes (see postern otp outside).`,
		Example: `  postern otp add --person alice --label 'blue key'
  postern otp add --person alice --slot 1 --out burn.sh
  postern otp add --person alice --touch`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.person == "" {
				return postern.Errorf(postern.Invalid, "whose key is it?").WithHint("give --person")
			}
			if o.slot != 1 && o.slot != 2 {
				return postern.Errorf(postern.Invalid, "a YubiKey has the slots 1 and 2")
			}
			if o.touch {
				return a.otpTouch(cmd.Context(), o)
			}
			return a.otpAdd(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.person, "person", "", "the `PERSON` who holds the key")
	f.StringVar(&o.label, "label", "", "a `NAME` for the key, in the person's own words")
	f.StringVar(&o.publicID, "public-id", "", "the key's public ID, 12 letters of `MODHEX` (default: a random one)")
	f.Int64Var(&o.serial, "serial", 0, "the key's serial `NUMBER`, as printed on it")
	f.IntVar(&o.slot, "slot", 2, "the `SLOT` to burn: 1 is a short touch, 2 a long one; new keys have YubiCloud's secret in 1")
	f.BoolVar(&o.touch, "touch", false, "keep the key's secret: register it by a touch")
	f.StringVarP(&o.out, "out", "o", "", "write the command and the secret as a script to `FILE`, mode 0600; - is standard output")
	cmd.MarkFlagsMutuallyExclusive("touch", "out")
	cmd.MarkFlagsMutuallyExclusive("touch", "public-id")
	return cmd
}

func (a *app) otpAdd(ctx context.Context, o otpAdd) error {
	if err := a.secretTarget(o.out); err != nil {
		return err
	}
	secret := otp.NewSecret()
	k := &otp.Key{PublicID: o.publicID, Secret: &secret, Person: o.person, Label: o.label, Serial: o.serial, Last: otp.Never}
	if k.PublicID == "" {
		k.PublicID = otp.NewPublicID()
	}
	if !otp.ValidPublicID(k.PublicID) || len(k.PublicID)%2 != 0 {
		return postern.Errorf(postern.Invalid, "%q is not a public ID", k.PublicID).WithHint("an even number of up to 16 letters of cbdefghijklnrtuv")
	}
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		if _, err := st.Store.People().Person(ctx, o.person); err != nil {
			return err
		}
		if err := keys.AddKeys(ctx, postern.Actor{}, []*otp.Key{k}, false); err != nil {
			return err
		}
		if err := a.secretOut(o.out, []byte(burn(o, k))); err != nil {
			return err
		}
		if o.out != "" && o.out != "-" {
			fmt.Fprintf(a.out, "added %s; where the key is plugged in, run\n\n    sh %s && shred -u %s\n", k.PublicID, o.out, o.out)
		}
		return nil
	})
}

// burn returns how to put the secret into the key: words for a person, or a
// script.
func burn(o otpAdd, k *otp.Key) string {
	private, key := hex.EncodeToString(k.Secret.PrivateID[:]), hex.EncodeToString(k.Secret.Key[:])
	command := fmt.Sprintf("ykman otp yubiotp %d --public-id %s", o.slot, k.PublicID)
	if o.out != "" {
		return fmt.Sprintf("#!/bin/sh\n# Burns a secret into slot %d of the YubiKey that is plugged in.\nexec %s <<'END'\n%s\n%s\ny\nEND\n", o.slot, command, private, key)
	}
	return fmt.Sprintf("Where the key is plugged in, run\n\n    %s\n\nand answer\n\n    private ID: %s\n    secret key: %s\n\nThis is shown once.\n", command, private, key)
}

// otpTouch registers a key by one of its codes.
func (a *app) otpTouch(ctx context.Context, o otpAdd) error {
	return a.withOneTime(ctx, func(st *state.State, ot *server.OneTime) error {
		code, err := a.typed("-", "Touch the key: ")
		if err != nil {
			return err
		}
		id, err := ot.Checker.Register(ctx, ot.Keys, otp.Registration{Person: o.person, Typed: code, Label: o.label})
		if err == nil {
			fmt.Fprintf(a.out, "%s is now %s's\n", id, o.person)
		}
		if postern.CodeOf(err) == postern.Denied {
			err = postern.Errorf(postern.Denied, "the key was not accepted").WithHint("see postern log list for the reason; a key that is not known here needs postern otp outside set")
		}
		return err
	})
}

// withOneTime opens the state and does something with what checks one-time
// passwords in a server.
func (a *app) withOneTime(ctx context.Context, f func(st *state.State, ot *server.OneTime) error) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	ot, err := server.NewOneTime(st, server.Mappings, a.quietLog())
	if err != nil {
		return err
	}
	defer ot.Close()
	return f(st, ot)
}
