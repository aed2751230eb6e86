//go:build !noserver

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// initOptions are the flags of init.
type initOptions struct {
	ca           ca.Config
	database     string
	databaseFile string
}

func newInit(a *app) *cobra.Command {
	var o initOptions
	cmd := plain("init", "Make a state directory: CAs, log key, database",
		func(ctx context.Context, _ []string) error {
			o.ca.Keys = new(pkcs11.Keys)
			return a.init(ctx, &o)
		})
	f := cmd.Flags()
	f.StringVar(&o.ca.Name, "name", "", "the organisation's `NAME` in the certificates (default Postern)")
	f.StringVar(&o.ca.Country, "country", "", "its country, a `CODE` of two capital letters")
	f.StringSliceVar(&o.ca.Domains, "domain", nil,
		"a `DOMAIN`, network or @host that the root may vouch for; can be repeated (default: any)")
	f.StringVar(&o.ca.URL, "url", "",
		"http:// `URL` under which others ask about revocation; written into certificates")
	f.StringVar((*string)(&o.ca.Algorithm), "key-type", "",
		"`TYPE` of the CAs' keys: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096 (default ecdsa-p256)")
	f.StringVar((*string)(&o.ca.SSHAlgorithm), "ssh-key-type", "",
		"`TYPE` of the SSH CAs' keys: the same, or ed25519 (default ecdsa-p256)")
	f.StringVar(&o.ca.KeyURI, "key", "",
		"pkcs11: `URI` of the HSM that makes and keeps the CAs' keys (default: the state directory)")
	f.StringVar(&o.ca.RootKeyURI, "root-key",
		"",
		"the same for the root's key alone; a `URI` that names a key takes that one; \"state\" is the state directory")
	f.StringVar(&o.database, "database",
		"",
		"`URL` of a PostgreSQL database, or host=… dbname=…, without a password (default: a SQLite file in the "+
			"state directory)")
	f.StringVar(&o.databaseFile, "database-file", "", "`FILE` whose first line is that URL; - is standard input")
	cmd.MarkFlagsMutuallyExclusive("database", "database-file")
	return cmd
}

func (a *app) init(ctx context.Context, o *initOptions) error {
	if err := o.ca.Validate(); err != nil {
		return err
	}
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	if err := a.chooseDatabase(dir, o); err != nil {
		return err
	}
	st, err := state.Create(ctx, dir)
	if err != nil {
		return err
	}
	defer st.Close()
	authority, made, err := ca.Ensure(ctx, o.ca, st.Store.CA())
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "the state is in %s\n", st.Dir)
	if made {
		return a.done(nil, "made the certificate authority %s\n", ca.SubjectString(authority.Root().RawSubject))
	}
	if o.ca.Chosen() {
		return postern.Errorf(postern.Conflict, "there is a certificate authority here already; it stays as it is").
			WithHint("choose another --state directory for a second one")
	}
	return nil
}

// chooseDatabase stores the URL of the database that the flags name, if they do.
func (a *app) chooseDatabase(dir string, o *initOptions) error {
	url := o.database
	switch {
	case url == "" && o.databaseFile == "":
		return nil
	case state.HasPassword(url):
		return postern.Errorf(postern.Invalid,
			"--database holds a password, which others on this host can see now: change it").
			WithHint("give the URL in a file, --database-file FILE, or leave the password to PGPASSFILE")
	case url == "":
		data, err := a.prompt().Read(o.databaseFile)
		if err != nil {
			return err
		}
		url, _, _ = strings.Cut(string(data), "\n")
	}
	return state.UseDatabase(dir, strings.TrimSpace(url))
}

func newRekey(a *app) *cobra.Command {
	var o state.RekeyOptions
	var passphrase string
	cmd := command("rekey", "Seal all secrets again under a new key-encrypting key", a.withDir,
		func(ctx context.Context, dir string, _ []string) (err error) {
			if passphrase != "" {
				if o.Passphrase, err = state.ReadPassphrase(passphrase); err != nil {
					return err
				}
			}
			end := terminal.Working(a.err, "sealing secrets again")
			done, err := state.Rekey(ctx, dir, o)
			end()
			return a.rekeyed(done, err)
		})
	cmd.Flags().BoolVar(&o.OthersKnow, "others-know", false,
		"the other servers of this database have kek.next and were reloaded")
	cmd.Flags().StringVar(&passphrase, "new-passphrase-file", "",
		"the `FILE` with the new passphrase, where the key comes from one")
	return cmd
}

// rekeyed says what was done, and what is to be done next.
func (a *app) rekeyed(done state.Rekeyed, err error) error {
	switch {
	case done.Servers:
		return a.done(err, `The new key is %s.
Copy it into the state directory of every other server of this database, run "postern run --reload" there,
and then here: postern rekey --others-know
`, done.Next)
	case done.Next != "":
		return a.done(err, `sealed %s again; the new key is %s
Make it the credential postern-kek, restart the server, and finish: postern rekey
`, terminal.Counted(done.Sealed, "secret"), done.Next)
	}
	return a.done(err, "sealed %s again; the new key is %s\n", terminal.Counted(done.Sealed, "secret"), done.Key)
}

func newBackup(a *app) *cobra.Command {
	var to []string
	o := backup.Options{Program: system.Version()}
	cmd := &cobra.Command{Use: "backup", Short: "Write the whole state to one file, while the server runs"}
	asJSON, f := jsonFlag(cmd), cmd.Flags()
	f.StringVar(&o.To, "to", "", "the `FILE` to write, or the directory for one with a name of its own (default .)")
	f.StringSliceVar(&to, "encrypt-to", nil, "an age `RECIPIENT`, or a file with some; can be repeated")
	f.IntVar(&o.Keep, "keep", 0, "in a directory, keep the newest `N` backups of this state (default: all)")
	cmd.RunE = on(a.withState, func(ctx context.Context, st *state.State, _ []string) (err error) {
		if o.Encrypt, err = backup.Recipients(to); err != nil {
			return err
		}
		made, err := backup.Make(ctx, st, o)
		if err != nil {
			return err
		}
		return a.printer().Fields(made, *asJSON, append(backupFields(made.Manifest), terminal.Field{"file", made.Path},
			terminal.Field{"size", fmt.Sprint(made.Size)}, terminal.Field{"note", made.Note()})...)
	})
	return cmd
}

// backupFields are what is shown of a backup.
func backupFields(m backup.Manifest) []terminal.Field {
	return []terminal.Field{
		{"made", terminal.Time(m.Made)},
		{"database", m.Database},
		{"people", fmt.Sprint(m.Holds.People)},
		{"keys", fmt.Sprint(m.Holds.Keys)},
		{"timeline", terminal.Counted(m.Holds.Entries, "entry") + ", the newest of " + terminal.Time(m.Holds.Newest)},
		{"links left out", strings.Join(m.LeftOut, ", ")},
	}
}

func newRestore(a *app) *cobra.Command {
	var identity string
	var check bool
	cmd := &cobra.Command{Use: "restore FILE", Short: "Put a backup's state into an empty state directory"}
	asJSON := jsonFlag(cmd)
	cmd.Flags().StringVar(&identity, "identity", "", "the `FILE` with the age identity, if the backup is encrypted")
	cmd.Flags().BoolVar(&check, "check", false, "check the backup, and put nothing in place")
	cmd.RunE = on(a.withDir, func(ctx context.Context, dir string, args []string) error {
		r, err := restore(ctx, args[0], dir, identity, check)
		if err != nil {
			return err
		}
		fields := append(backupFields(r.Manifest), terminal.Field{"age", r.Age()})
		if !check {
			fields = append(fields, terminal.Field{"after it", r.Disabled.String()})
		}
		return a.printer().Fields(r, *asJSON, fields...)
	})
	return cmd
}

// restore puts a backup into a state directory, or only checks it.
func restore(ctx context.Context, file, dir, identity string, check bool) (r backup.Restored, err error) {
	ids, err := backup.Identities(identity)
	if err != nil {
		return r, err
	}
	if check {
		r.Manifest, err = backup.Check(ctx, file, ids)
		return r, err
	}
	return backup.Restore(ctx, file, dir, ids, people.ByHand(postern.Event{Kind: postern.EventOTPRestored}))
}
