package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

// otpImport is what otp import was told.
type otpImport struct {
	format, person, people, passwordFile, keyFile string
	replace, skipBad                              bool
}

func newOTPImport(a *app) *cobra.Command {
	var o otpImport
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take over keys, authenticators, counters and API clients from elsewhere",
		Long: `Import YubiKeys, authenticators (TOTP and HOTP), the counters of their last codes,
and API clients. FILE, or - for standard input, is one of
  - otpauth: URLs, a line each; the export of Google Authenticator
    (otpauth-migration:, as its QR codes have it),
  - .google_authenticator of pam_google_authenticator; users.oath of pam_oath,
  - the CSV of LinOTP and privacyIDEA, or any CSV with a header line that names
    username, serial, secret, type, digits, period, algorithm, counter,
  - the backup of FreeOTP+ or Aegis, the latter also encrypted with a password,
  - PSKC (RFC 6030), also encrypted with a password or a key,
  - the key file of yubikey-ksm (# ykksm 1),
  - the log of ykman (-O) or of the personalization tools: Yubico's format, the
    traditional one and PSKC; the flexible one with --format as it was set there,
  - what ykval-export or ykval-export-clients of yubikey-val wrote,
  - an SQL dump of yubikey-val, yubikey-ksm or yubiserver (SQLite, MySQL,
    PostgreSQL), or yubiserver's database itself.

An authenticator belongs to the person whose name or e-mail address the file has
for its owner, to the one that --people names, or to --person.

What cannot be taken over is listed with its line, and nothing is imported unless
--skip-bad says to import the rest. Counters only ever rise, so no code that was
used elsewhere before can be used here again: import the counters before the
first code is checked here, and switch the old server off.`,
		Example: `  postern otp import keys.csv
  gpg --decrypt keys.asc | postern otp import -
  postern otp import --person alice /home/alice/.google_authenticator
  postern otp import --people serials.csv --key key.hex tokens.pskcxml
  ykval-export | postern otp import -`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := a.readImport(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			return a.otpImport(cmd.Context(), im, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "the personalization tool's flexible `FORMAT`: {serial},{pubIdTxt},{pvtIdTxt},{secretKeyTxt}")
	f.StringVar(&o.person, "person", "", "the `PERSON` whose everything in the file is")
	f.StringVar(&o.people, "people", "", "`FILE` that says whose what is: lines of serial number, public ID or account, a comma, and person")
	f.StringVar(&o.passwordFile, "passphrase-file", "", "`FILE` with the passphrase of an encrypted file (default: ask)")
	f.StringVar(&o.keyFile, "key", "", "`FILE` with the key of an encrypted PSKC file, in hexadecimal")
	f.BoolVar(&o.replace, "replace", false, "give keys that are known already the secrets of the file")
	f.BoolVar(&o.skipBad, "skip-bad", false, "import the rest where something cannot be taken over")
	cmd.MarkFlagsMutuallyExclusive("person", "people")
	return cmd
}

func (a *app) readImport(ctx context.Context, path string, o otpImport) (*otp.Import, error) {
	options := otp.ImportOptions{Format: o.format, Password: func() ([]byte, error) { return a.password(o.passwordFile, path) }}
	if o.keyFile != "" {
		line, err := a.passwordFile(o.keyFile)
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
	f, err := os.Open(path)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if magic, _ := in.Peek(16); otp.IsSQLite(magic) {
		text, err := store.DumpSQLite(ctx, path, otp.ImportedTables...)
		if err != nil {
			return nil, err
		}
		return otp.ReadImport(bytes.NewReader(text), options)
	}
	return otp.ReadImport(in, options)
}

func (a *app) otpImport(ctx context.Context, im *otp.Import, o otpImport) error {
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		owners := map[string]string{}
		if o.people != "" {
			text, err := os.ReadFile(o.people)
			if err != nil {
				return postern.Errorf(postern.NotFound, "%w", err)
			}
			if owners, err = otp.ParseOwners(text); err != nil {
				return err
			}
		}
		err := im.Assign(o.person, owners, func(name string) (string, error) { return st.Store.People().PersonNamed(ctx, name) })
		if err != nil {
			return err
		}
		if err := a.listSkipped(im, o.skipBad); err != nil {
			return err
		}
		if err := keys.Import(ctx, im, o.replace); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "imported %s, %s, %s, %s\n", terminal.Counted(len(im.Keys), "key"), terminal.Counted(len(im.OATH), "authenticator"),
			terminal.Counted(len(im.Counters), "counter"), terminal.Counted(len(im.Clients), "API client"))
		return nil
	})
}

// listSkipped lists what is not imported, and fails unless the rest is to be.
func (a *app) listSkipped(im *otp.Import, skipBad bool) error {
	for _, s := range im.Skipped {
		fmt.Fprintf(a.err, "%s: not imported: %s\n", s.Place, s.Why)
	}
	if im.Unlisted > 0 {
		fmt.Fprintf(a.err, "%s not imported\n", terminal.Counted(im.Unlisted, "more line"))
	}
	switch n := len(im.Skipped) + im.Unlisted; {
	case im.Empty():
		return postern.Errorf(postern.Invalid, "the file holds nothing that can be imported")
	case n > 0 && !skipBad:
		return postern.Errorf(postern.Invalid, "%s of the file cannot be imported, so nothing was", terminal.Counted(n, "thing")).
			WithHint("mend the file, or give --skip-bad to import the rest")
	}
	return nil
}

func newOTPExport(a *app) *cobra.Command {
	var out, what string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all keys, or their counters, for another server",
		Long: `Write all YubiKeys in the format of yubikey-ksm's key file, with their secrets, or
with --what counters what yubikey-val imports. Both are read again by postern otp
import. Slots' access codes are not known here and come out as none.`,
		Example: `  postern otp export --out keys.csv
  postern otp export --out - | gpg --encrypt --recipient backup > keys.asc
  postern otp export --what counters > counters.csv`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.otpExport(cmd.Context(), what, out)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` to make, mode 0600; - is standard output")
	cmd.Flags().StringVar(&what, "what", "keys", "`WHAT` to write: keys or counters")
	return cmd
}

func (a *app) otpExport(ctx context.Context, what, out string) error {
	write := map[string]func(io.Writer, []*otp.Key) error{"keys": otp.WriteKSM, "counters": otp.WriteVal}[what]
	if write == nil {
		return postern.Errorf(postern.Invalid, "--what is keys or counters")
	}
	if what == "keys" {
		if err := a.secretTarget(out); err != nil {
			return err
		}
	} else if out == "" {
		out = "-"
	}
	return a.withOTP(ctx, func(st *state.State, keys *store.OTP) error {
		all, err := keys.Keys(ctx, "")
		if err != nil {
			return err
		}
		if out == "" || out == "-" {
			return write(a.out, all)
		}
		var text bytes.Buffer
		if err := write(&text, all); err != nil {
			return err
		}
		if err := a.newSecretFile(out, text.Bytes()); err != nil {
			return err
		}
		return keys.Exported(ctx, len(all))
	})
}
