package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newCA(a *app) *cobra.Command {
	return group("ca", "Certificates: issue, renew, revoke, export",
		newCAIssue(a),
		newCASign(a),
		newCAList(a),
		newCAShow(a),
		newCARenew(a),
		newCARevoke(a),
		newCACRL(a),
		oldSpelling(newSSHKRL(a)),
		newCAExport(a),
		newCARoot(a),
		newCAIntermediate(a),
		newCAToken(a),
		newCAURL(a),
		newACMEKeys(a),
	)
}

// openCA opens the state and the authority in it.
func (a *app) openCA(ctx context.Context) (*state.State, *ca.Authority, error) {
	return a.openCAWith(ctx, ca.Config{Keys: deviceKeys()})
}

func (a *app) openCAWith(ctx context.Context, cfg ca.Config) (*state.State, *ca.Authority, error) {
	st, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	authority, err := ca.Open(ctx, cfg, st.Store.CA())
	if err != nil {
		st.Close()
		return nil, nil, err
	}
	return st, authority, nil
}

// deviceKeys reaches CAs' keys in devices.
func deviceKeys() *pkcs11.Keys { return &pkcs11.Keys{ReadPIN: durable.ReadCredential} }

// validityFlag is a duration that may be given in days: 90d.
type validityFlag time.Duration

// String implements pflag.Value.
func (v *validityFlag) String() string {
	if *v == 0 {
		return ""
	}
	return time.Duration(*v).String()
}

// Type implements pflag.Value.
func (v *validityFlag) Type() string { return "duration" }

// Set implements pflag.Value.
func (v *validityFlag) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100000 {
			*v = validityFlag(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return postern.Errorf(postern.Invalid, "%q is not a length of time such as 90d or 12h", s)
	}
	*v = validityFlag(d)
	return nil
}

// serialArg reads a serial number from the command line.
func serialArg(s string) (string, error) { return ca.ParseSerial(s) }

// describe prints what was issued.
func (a *app) describe(c ca.Certificate) error {
	return a.printer().Fields(c, false, issuedFields(c)...)
}

// issuedFields are what a certificate says.
func issuedFields(c ca.Certificate) []terminal.Field {
	return []terminal.Field{
		{"serial", c.Serial},
		{"subject", c.Subject},
		{"names", strings.Join(c.Names, " ")},
		{"valid", terminal.Stamp(c.NotBefore) + " to " + terminal.Stamp(c.NotAfter)},
	}
}
