package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/state"
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
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a state directory: CAs, log key, database",
		Long: `Make what is missing of the state directory: the key-encrypting key, the
database, the timeline with its key, and the certificate authority: a root, an
intermediate for servers and one for clients, and the keys that sign SSH user and
host certificates. What is there stays as it is.

With --domain the root may vouch for nothing else: for a domain, all below it and
the mail addresses there; for a network; for the mail addresses of one host
(@example.net). Systems that install such a root trust it for these names only.
localhost is always among them.

Without --url the certificates say to ask about revocation at the portal's host,
once a server has run with one. postern ca url changes it at any time.

With --key the keys of the CAs are made in an HSM that is reached by PKCS#11 (also a
YubiKey or a smart card) and never leave it; with --root-key the root's alone is. The
URI is that of RFC 7512: which token, by token= or serial=; which module speaks to it,
by module-path= (or p11-kit finds it, where it is registered there); and pin-source=,
the absolute path of a file of mode 0600 with the PIN. A key that is in the HSM
already, as a YubiKey's own, is taken where --root-key names it by id= or object=.
While the HSM is unavailable nothing is signed with it; all else goes on.

The database's URL is kept in the state directory, readable by its owner only. One
with a password comes from a file (--database-file), since any user on the host
sees the arguments of commands; or the password stays out of it, in PGPASSFILE or
~/.pgpass, which must then be there for the server as well. POSTERN_DATABASE in the
environment takes the place of what is kept.`,
		Example: `  postern init --name "Example Org" --domain example.com --domain 192.0.2.0/24
  postern init --url http://pki.example.com
  postern init --key 'pkcs11:token=postern?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/postern/pin'
  postern init --root-key 'pkcs11:id=%02?module-path=/usr/lib/x86_64-linux-gnu/libykcs11.so&pin-source=/etc/postern/pin'
  postern init --database postgres://postern@db.example.com/postern
  postern init --database-file db.url`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.ca.Keys = new(pkcs11.Keys)
			return a.init(cmd.Context(), &o)
		},
	}
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
		data, err := a.readInput(o.databaseFile)
		if err != nil {
			return err
		}
		url, _, _ = strings.Cut(string(data), "\n")
	}
	return state.UseDatabase(dir, strings.TrimSpace(url))
}
