//go:build !noserver

package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// urlJSON is where certificates say to ask about revocation, as it is printed.
type urlJSON struct {
	URL    string `json:"url"`
	Chosen bool   `json:"chosen"` // and not the portal's
}

func newCAURL(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "url [URL | portal | none]",
		Short: "Where certificates say to ask about revocation",
		Args:  cobra.MaximumNArgs(1),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(a.withCA, func(ctx context.Context, authority *ca.Authority, args []string) error {
		if len(args) == 0 {
			return a.showURL(authority, *asJSON)
		}
		if err := authority.SetURL(ctx, args[0]); err != nil {
			return err
		}
		err := a.showURL(authority, false)
		for _, role := range authority.Unlisted() {
			fmt.Fprintf(a.out, "the %s CA does not say where to ask about it; one that does: %s\n", role,
				newIntermediateCommand(role))
		}
		return err
	})
	return cmd
}

func (a *app) showURL(authority *ca.Authority, asJSON bool) error {
	url, chosen := authority.URL(), authority.URLChosen()
	from := map[bool]string{true: "chosen", false: "the portal's host"}[chosen]
	switch {
	case asJSON:
		return terminal.JSON(a.out, urlJSON{url, chosen})
	case url != "":
		return a.done(nil, "%s (%s)\n", url, from)
	case chosen:
		return a.done(nil, "none (chosen)\n")
	}
	return a.done(nil, "none: no server has run yet with a portal that other hosts reach\n")
}
