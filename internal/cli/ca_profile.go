//go:build !noserver

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

func newCAProfileList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{
		Use:   "list",
		Short: "List the profiles of certificates",
	}, a.withCA, "PROFILE VALID LONGEST KEYS DESCRIPTION",
		func(_ context.Context, authority *ca.Authority, _ []string) (list []ca.PolicyInfo, _ error) {
			for _, p := range authority.Policies() {
				list = append(list, p.Info())
			}
			return list, nil
		}, func(p ca.PolicyInfo) []string {
			keys := make([]string, len(p.Keys))
			for i, k := range p.Keys {
				keys[i] = string(k)
			}
			return []string{
				string(p.Profile), lifetime(p.Validity), lifetime(p.Max), cmp.Or(strings.Join(keys, " "), "any"),
				terminal.Dash(p.Description),
			}
		})
}

// lifetime writes a length of time that is in seconds.
func lifetime(seconds int64) string { return ca.Lifetime(time.Duration(seconds) * time.Second) }
