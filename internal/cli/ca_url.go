package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// followPortal chooses the portal's host for the URL.
const followPortal = "portal"

func newCAURL(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "url [URL | portal | none]",
		Short: "Where certificates say to ask about revocation",
		Long: `Print, or change, the http:// address that certificates carry: where others fetch
revocation lists and CAs, and ask by OCSP. Without a choice it is the portal's host, as
the server that ran last had it; portal goes back to that. With none certificates say
nothing, and programs that check them have to be configured.

Servers that run take it up within a second. Certificates of before stay as they
are until they are renewed, and so do intermediates: postern ca intermediate new
makes one.`,
		Example: `  postern ca url
  postern ca url http://pki.example.com`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withCA(cmd.Context(), func(_ *state.State, authority *ca.Authority) error {
				if len(args) == 1 {
					return a.setURL(cmd.Context(), authority, args[0])
				}
				return a.showURL(authority, asJSON)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) setURL(ctx context.Context, authority *ca.Authority, url string) error {
	switch url {
	case "":
		return postern.Errorf(postern.Invalid, "no address given").
			WithHint("postern ca url http://HOST, or portal, or none")
	case followPortal:
		url = ""
	}
	if err := authority.SetURL(ctx, url); err != nil {
		return err
	}
	if err := a.showURL(authority, false); err != nil {
		return err
	}
	for _, role := range authority.Unlisted() {
		fmt.Fprintf(a.out, "the %s CA does not say where to ask about it; one that does: %s\n", role,
			newIntermediateCommand(role))
	}
	return nil
}

// urlJSON is where certificates say to ask about revocation, as it is printed.
type urlJSON struct {
	URL    string `json:"url"`
	Chosen bool   `json:"chosen"` // and not the portal's
}

func (a *app) showURL(authority *ca.Authority, asJSON bool) error {
	url, from := authority.URL(), "the portal's host"
	if authority.URLChosen() {
		from = "chosen"
	}
	if asJSON {
		return terminal.JSON(a.out, urlJSON{url, authority.URLChosen()})
	}
	switch {
	case url != "":
		fmt.Fprintf(a.out, "%s (%s)\n", url, from)
	case authority.URLChosen():
		fmt.Fprintln(a.out, "none (chosen)")
	default:
		fmt.Fprintln(a.out, "none: no server has run yet with a portal that other hosts reach")
	}
	return nil
}
