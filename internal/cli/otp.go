package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newOTP(a *app) *cobra.Command {
	return group("otp", "YubiKeys and other one-time passwords",
		newOTPAdd(a), newOTPList(a), newOTPShow(a), newOTPAssign(a),
		newOTPStatus(a, otpStatus{
			use: "disable", done: "disabled", status: postern.CredentialDisabled,
			short: "Take no more codes of a key or device, for now",
			long:  "Disable a key or device: none of its codes opens anything, from the next one on, until it is enabled.",
		}),
		newOTPStatus(a, otpStatus{
			use: "enable", done: "enabled", status: postern.CredentialActive,
			short: "Take the codes of a disabled key or device again",
			long:  "Enable a key or device that was disabled.",
		}),
		newOTPStatus(a, otpStatus{
			use: "revoke", done: "revoked", status: postern.CredentialRevoked,
			short: "Take no more codes of a key or device, for good",
			long:  "Revoke a key or device that was lost. This cannot be undone.",
		}),
		newOTPImport(a), newOTPExport(a),
		newOTPShortCodes(a, postern.TOTP), newOTPShortCodes(a, postern.HOTP), newOTPRecovery(a),
		newOTPVerify(a), newOTPClient(a), newOTPOutside(a), newOTPSync(a), newOTPRestored(a), newOTPToken(a),
	)
}

// withOTP opens the state and does something with its one-time passwords.
func (a *app) withOTP(ctx context.Context, f func(st *state.State, keys *store.OTP) error) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	return f(st, st.Store.OTP())
}

// quietLog returns a logger that prints warnings for people, on standard error.
func (a *app) quietLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// secretOut says where a command may write a secret: to a file of mode 0600, or
// to a terminal, where it stays once. A pipe gets it only if asked for with "-".
func (a *app) secretOut(path string, secret []byte) error {
	switch {
	case path == "-":
		_, err := a.out.Write(secret)
		return err
	case path != "":
		return a.newSecretFile(path, secret)
	}
	if f, ok := a.out.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return postern.Errorf(postern.Invalid, "a secret is not printed into a pipe or a file that others may read").
			WithHint("give --out FILE for a file of mode 0600, or --out - to have it all the same")
	}
	_, err := a.out.Write(secret)
	return err
}

// secretTarget fails early if secretOut would.
func (a *app) secretTarget(path string) error {
	if path != "" {
		if _, err := os.Lstat(path); path != "-" && err == nil {
			return postern.Errorf(postern.Conflict, "%s is there already", path)
		}
		return nil
	}
	return a.secretOut(path, nil)
}

// newSecretFile writes a file that must not be there yet, for its owner's eyes.
func (a *app) newSecretFile(path string, secret []byte) error {
	err := durable.Create(path, secret, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return postern.Errorf(postern.Conflict, "%s is there already", path)
	}
	if err != nil {
		return postern.Errorf(postern.Invalid, "%w", err)
	}
	return nil
}

// typed reads a code: the argument, or for "-" a line of standard input, which
// is not echoed.
func (a *app) typed(arg, prompt string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.err, prompt)
		line, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return string(line), err
	}
	b, err := io.ReadAll(io.LimitReader(a.in, 1024))
	line, _, _ := strings.Cut(string(b), "\n")
	return line, err
}

// otpItem is a key or device, as lists show it.
type otpItem struct {
	Kind     postern.CredentialKind   `json:"kind"`
	ID       string                   `json:"id"`
	Person   string                   `json:"person,omitempty"`
	Label    string                   `json:"label,omitempty"`
	Status   postern.CredentialStatus `json:"status"`
	Secret   string                   `json:"secret"` // "here" or "outside"
	Serial   int64                    `json:"serial,omitempty"`
	Counter  *int64                   `json:"counter,omitempty"`
	Use      *int64                   `json:"use,omitempty"`
	Created  time.Time                `json:"created,omitzero"`
	LastUsed time.Time                `json:"last_used,omitzero"`
}

func keyItem(k *otp.Key) otpItem {
	i := otpItem{
		Kind: postern.YubiKey, ID: k.PublicID, Person: k.Person, Label: k.Label, Status: k.Status,
		Secret: "here", Serial: k.Serial, Created: k.Created, LastUsed: k.Last.Time,
	}
	if k.Secret == nil {
		i.Secret = "outside"
	}
	if k.Last.Seq >= 0 {
		counter, use := k.Last.Seq>>8, k.Last.Seq&0xff
		i.Counter, i.Use = &counter, &use
	}
	return i
}

func oathItem(o *otp.OATH) otpItem {
	i := otpItem{Kind: o.Kind, ID: o.ID, Person: o.Person, Label: o.Label, Status: o.Status, Secret: "here", Created: o.Created, LastUsed: o.Used}
	if o.Kind == postern.HOTP && o.Moving >= 0 {
		i.Counter = &o.Moving
	}
	return i
}

// otpItems returns keys and devices, of one person or all.
func otpItems(ctx context.Context, st *state.State, keys *store.OTP, person string) ([]otpItem, error) {
	var items []otpItem
	all, err := keys.Keys(ctx, person)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		items = append(items, keyItem(k))
	}
	devices, err := keys.OATHs(ctx, person)
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		items = append(items, oathItem(d))
	}
	return items, nil
}

func newOTPList(a *app) *cobra.Command {
	var asJSON bool
	var person string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List YubiKeys and other devices",
		Long: `List YubiKeys by public ID, then TOTP and HOTP devices: kind, ID, person, status,
last use, name. Secrets are not shown.`,
		Example: "  postern otp list --person alice --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(st *state.State, keys *store.OTP) error {
				items, err := otpItems(cmd.Context(), st, keys, person)
				if err != nil {
					return err
				}
				return a.otpTable(items, asJSON)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&person, "person", "", "only what this `PERSON` holds")
	return cmd
}

func (a *app) otpTable(items []otpItem, asJSON bool) error {
	return terminal.List(a.printer(), items, asJSON, "ID KIND PERSON STATUS SECRET LAST-USED LABEL", func(i otpItem) []string {
		used := "never"
		if !i.LastUsed.IsZero() {
			used = terminal.Stamp(i.LastUsed)
		}
		return []string{i.ID, string(i.Kind), i.Person, string(i.Status), i.Secret, used, i.Label}
	})
}

// findItem returns the key or device of an ID.
func findItem(ctx context.Context, st *state.State, keys *store.OTP, id string) (otpItem, error) {
	items, err := otpItems(ctx, st, keys, "")
	if err != nil {
		return otpItem{}, err
	}
	for _, i := range items {
		if i.ID == id {
			return i, nil
		}
	}
	return otpItem{}, postern.Errorf(postern.NotFound, "there is no key or device %q", id).WithHint("see postern otp list")
}

func newOTPShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a key or device",
		Long:    "Show all that is known of a YubiKey, by its public ID, or of a TOTP or HOTP device. The secret is not shown.",
		Example: "  postern otp show vvccccbdefgh",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withOTP(cmd.Context(), func(st *state.State, keys *store.OTP) error {
				i, err := findItem(cmd.Context(), st, keys, args[0])
				if err != nil {
					return err
				}
				return a.otpShow(i, asJSON)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) otpShow(i otpItem, asJSON bool) error {
	var serial, last string
	if i.Serial != 0 {
		serial = strconv.FormatInt(i.Serial, 10)
	}
	switch {
	case i.Counter != nil && i.Use != nil:
		last = fmt.Sprintf("session %d, use %d", *i.Counter, *i.Use)
	case i.Counter != nil:
		last = fmt.Sprintf("counter %d", *i.Counter)
	}
	return a.printer().Fields(i, asJSON,
		terminal.Field{"id", i.ID},
		terminal.Field{"kind", string(i.Kind)},
		terminal.Field{"person", i.Person},
		terminal.Field{"label", i.Label},
		terminal.Field{"status", string(i.Status)},
		terminal.Field{"secret", i.Secret},
		terminal.Field{"serial", serial},
		terminal.Field{"last code", last},
		terminal.Field{"added", terminal.Stamp(i.Created)},
		terminal.Field{"last used", terminal.Stamp(i.LastUsed)},
	)
}

// otpStatus is one of the commands that change a key's status.
type otpStatus struct {
	use, done, short, long string
	status                 postern.CredentialStatus
}

func newOTPStatus(a *app, s otpStatus) *cobra.Command {
	return &cobra.Command{
		Use:     s.use + " ID",
		Short:   s.short,
		Long:    s.long,
		Example: "  postern otp " + s.use + " vvccccbdefgh",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withOTP(cmd.Context(), func(st *state.State, keys *store.OTP) error {
				i, err := findItem(cmd.Context(), st, keys, args[0])
				if err != nil {
					return err
				}
				if i.Kind == postern.YubiKey {
					err = keys.SetKeyStatus(cmd.Context(), i.ID, s.status)
				} else {
					err = keys.SetOATHStatus(cmd.Context(), postern.Actor{}, i.Kind, i.ID, s.status)
				}
				if err == nil {
					fmt.Fprintf(a.out, "%s %s\n", s.done, i.ID)
				}
				return err
			})
		},
	}
}

func newOTPAssign(a *app) *cobra.Command {
	var person string
	cmd := &cobra.Command{
		Use:     "assign ID",
		Short:   "Give a YubiKey to a person",
		Long:    "Give a YubiKey to a person, or with no --person take it back.",
		Example: "  postern otp assign vvccccbdefgh --person alice",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withOTP(cmd.Context(), func(st *state.State, keys *store.OTP) error {
				if person != "" {
					if _, err := st.Store.People().Person(cmd.Context(), person); err != nil {
						return err
					}
				}
				err := keys.AssignKey(cmd.Context(), args[0], person)
				if err == nil {
					fmt.Fprintf(a.out, "%s is now %s\n", args[0], map[bool]string{true: person + "'s", false: "nobody's"}[person != ""])
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&person, "person", "", "the `PERSON` who holds the key from now on")
	return cmd
}
