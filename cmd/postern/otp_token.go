package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPToken(a *app) *cobra.Command {
	return group("token", "A YubiKey in software, for tests and trials",
		newOTPTokenNew(a), newOTPTokenTouch(a), newOTPTokenPlug(a), newOTPTokenCSV(a))
}

// tokenFile is a software token as its file holds it.
type tokenFile struct {
	PublicID  string    `json:"public_id"`
	PrivateID string    `json:"private_id"`
	Key       string    `json:"key"`
	Counter   uint16    `json:"counter"`
	Use       uint8     `json:"use"`
	Clock     uint32    `json:"clock"`
	Powered   time.Time `json:"powered,omitzero"`
}

func encodeToken(t *otp.SoftToken) ([]byte, error) {
	b, err := json.MarshalIndent(tokenFile{
		PublicID: t.PublicID, PrivateID: hex.EncodeToString(t.Secret.PrivateID[:]), Key: hex.EncodeToString(t.Secret.Key[:]),
		Counter: t.Counter, Use: t.Use, Clock: t.Clock, Powered: t.Powered,
	}, "", "  ")
	return append(b, '\n'), err
}

func decodeToken(b []byte) (*otp.SoftToken, error) {
	var f tokenFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	t := &otp.SoftToken{PublicID: f.PublicID, Counter: f.Counter, Use: f.Use, Clock: f.Clock, Powered: f.Powered}
	n, err1 := hex.Decode(t.Secret.PrivateID[:], []byte(f.PrivateID[:min(len(f.PrivateID), 12)]))
	m, err2 := hex.Decode(t.Secret.Key[:], []byte(f.Key[:min(len(f.Key), 32)]))
	if err1 != nil || err2 != nil || n != 6 || m != 16 || !otp.ValidPublicID(f.PublicID) {
		return nil, errors.New("not a token")
	}
	return t, nil
}

// withToken changes the token in a file: while f works on it nobody else does,
// and the file is durable before withToken returns. A token file that others
// can read is refused.
func withToken(path string, f func(*otp.SoftToken) error) error {
	lock, err := lockToken(path)
	if err != nil {
		return err
	}
	defer lock.Close()
	b, err := durable.ReadSecret(path)
	if err != nil {
		return err
	}
	t, err := decodeToken(b)
	if err != nil {
		return postern.Errorf(postern.Invalid, "%s is not a software token", path)
	}
	if err := f(t); err != nil {
		return postern.Errorf(postern.Conflict, "%s: %w", path, err)
	}
	if b, err = encodeToken(t); err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

// lockToken opens the file and locks it. The file is replaced when it changes,
// so a lock counts only on the file that is there.
func lockToken(path string) (*os.File, error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, postern.Errorf(postern.NotFound, "%w", err).WithHint("postern otp token new %s", path)
		}
		if err := system.Lock(f); err != nil {
			f.Close()
			return nil, err
		}
		held, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return f, nil
		}
		f.Close()
	}
}

func newOTPTokenNew(a *app) *cobra.Command {
	var publicID string
	cmd := &cobra.Command{
		Use:   "new FILE",
		Short: "Make a software token",
		Long: `Make a YubiKey in software: a file of mode 0600 with a fresh secret and the state
that a key would hold. It is for tests and trials; a file can be copied, a key
cannot.`,
		Example: `  postern otp token new token.json
  postern otp token csv token.json | postern otp import --person alice -
  postern otp token touch token.json`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			t := otp.NewSoftToken()
			if publicID != "" {
				t.PublicID = publicID
			}
			if !otp.ValidPublicID(t.PublicID) {
				return postern.Errorf(postern.Invalid, "%q is not a public ID", t.PublicID)
			}
			b, err := encodeToken(t)
			if err != nil {
				return err
			}
			if err := a.newSecretFile(args[0], b); err != nil {
				return err
			}
			fmt.Fprintln(a.out, t.PublicID)
			return nil
		},
	}
	cmd.Flags().StringVar(&publicID, "public-id", "", "its public ID in `MODHEX` (default: a random one)")
	return cmd
}

func newOTPTokenTouch(a *app) *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:     "touch FILE",
		Short:   "Print the token's next code",
		Long:    "Touch a software token: it prints its next code, and has used it up.",
		Example: "  postern otp verify $(postern otp token touch token.json)",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if n < 1 || n > 1000 {
				return postern.Errorf(postern.Invalid, "touch it 1 to 1000 times")
			}
			var codes []string
			err := withToken(args[0], func(t *otp.SoftToken) error {
				for range n {
					c, err := t.Touch(time.Now())
					if err != nil {
						return err
					}
					codes = append(codes, c.Modhex())
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, c := range codes {
				fmt.Fprintln(a.out, c)
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&n, "count", "n", 1, "print this `NUMBER` of codes")
	return cmd
}

func newOTPTokenPlug(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "plug FILE",
		Short:   "Unplug the token and plug it in again",
		Long:    "Unplug a software token and plug it in again: its session counter rises, its use counter and clock start over.",
		Example: "  postern otp token plug token.json",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return withToken(args[0], func(t *otp.SoftToken) error { return t.PowerUp(time.Now()) })
		},
	}
}

func newOTPTokenCSV(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "csv FILE",
		Short:   "Print the token's secret for otp import",
		Long:    "Print a software token's secret as a line of the key file that postern otp import reads.",
		Example: "  postern otp token csv token.json | postern otp import --person alice -",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := durable.ReadSecret(args[0])
			if err != nil {
				return err
			}
			t, err := decodeToken(b)
			if err != nil {
				return postern.Errorf(postern.Invalid, "%s is not a software token", args[0])
			}
			return otp.WriteKSM(a.out, []*otp.Key{{PublicID: t.PublicID, Secret: &t.Secret}})
		},
	}
}
