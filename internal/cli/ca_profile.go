package cli

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newCAProfile(a *app) *cobra.Command {
	return group("profile", "Profiles: what certificates are like", newCAProfileList(a))
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

func newCAProfileList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{
		Use:   "list",
		Short: "List the profiles of certificates",
	}, a.withCA, "PROFILE VALID LONGEST KEYS DESCRIPTION",
		func(_ context.Context, authority *ca.Authority, _ []string) (list []profileJSON, _ error) {
			for _, p := range authority.Policies() {
				list = append(list, profileJSON{
					p.Profile, p.Text, int64(p.Validity.Seconds()), int64(p.Max.Seconds()), p.Keys, p.SignOnly, p.OIDs,
				})
			}
			return list, nil
		}, profileJSON.row)
}

func (p profileJSON) row() []string {
	keys := make([]string, len(p.Keys))
	for i, k := range p.Keys {
		keys[i] = string(k)
	}
	return []string{
		string(p.Profile), lifetime(p.Validity), lifetime(p.Max), cmp.Or(strings.Join(keys, " "), "any"),
		terminal.Dash(p.Description),
	}
}

// lifetime writes a length of time that is in seconds.
func lifetime(seconds int64) string { return ca.Lifetime(time.Duration(seconds) * time.Second) }
