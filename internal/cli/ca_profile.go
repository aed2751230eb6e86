package cli

import (
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newCAProfile(a *app) *cobra.Command {
	return group("profile", "Profiles: what certificates are like", newCAProfileList(a))
}

func newCAProfileList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the profiles of certificates",
		Long: `List the profiles: how long certificates of each are valid, for how long one may be
asked for at most, and which keys are certified. They are configured in the ca block
of the Caddyfile, see postern-caddyfile(5). What the server loaded last holds, for
commands as well.`,
		Example: "  postern ca profile list\n  postern ca issue --server www.example.com --profile shortlived",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.caProfileList(cmd.Context(), asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// profileJSON is a profile as it is printed.
type profileJSON struct {
	Profile     ca.Profile     `json:"profile"`
	Description string         `json:"description,omitempty"`
	Validity    int64          `json:"validity_seconds"`
	Max         int64          `json:"max_seconds"`
	Keys        []ca.Algorithm `json:"keys,omitempty"` // none: all that are strong enough
	SignOnly    bool           `json:"sign_only,omitempty"`
	Policies    []string       `json:"policies,omitempty"` // object identifiers
}

func (a *app) caProfileList(ctx context.Context, asJSON bool) error {
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		var list []profileJSON
		for _, p := range authority.Policies() {
			list = append(list, profileJSON{
				p.Profile, p.Text, int64(p.Validity.Seconds()), int64(p.Max.Seconds()), p.Keys, p.SignOnly, p.OIDs,
			})
		}
		return terminal.List(a.printer(), list, asJSON, "PROFILE VALID LONGEST KEYS DESCRIPTION", profileJSON.row)
	})
}

func (p profileJSON) row() []string {
	return []string{string(p.Profile), lifetime(p.Validity), lifetime(p.Max), p.keys(), terminal.Dash(p.Description)}
}

// lifetime writes a length of time that is in seconds.
func lifetime(seconds int64) string { return ca.Lifetime(time.Duration(seconds) * time.Second) }

// keys says which keys are certified.
func (p profileJSON) keys() string {
	var names []string
	for _, k := range p.Keys {
		names = append(names, string(k))
	}
	if len(names) == 0 {
		return "any"
	}
	return strings.Join(names, " ")
}
