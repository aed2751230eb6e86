package people

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
)

// ErrNoPortal says that no portal has run on the state yet.
var ErrNoPortal = errors.New("no portal has run here yet, so there is no address to send anybody to")

// setting is where a running portal leaves its configuration.
const setting = "portal"

// lastPortal is the configuration of the portal that last ran.
type lastPortal struct {
	Config portal.Config
	Mails  bool
}

// RememberPortal notes the configuration of a portal, and whether it sends mail,
// for whoever makes links to it while it does not run.
func RememberPortal(ctx context.Context, db *store.DB, c portal.Config, mails bool) error {
	text, err := json.Marshal(lastPortal{Config: c, Mails: mails})
	if err != nil {
		return err
	}
	return store.NewPortal(db).SetPortalSetting(ctx, setting, string(text))
}

// Links returns what makes links to the portal that last ran on this database;
// NotFound (ErrNoPortal) if none ever did.
func Links(ctx context.Context, db *store.DB, authority *ca.Authority) (*portal.Links, error) {
	s := store.NewPortal(db)
	text, err := s.PortalSetting(ctx, setting)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, postern.Errorf(postern.NotFound, "%w", ErrNoPortal).
			WithHint("start the server, or issue the certificate here")
	}
	var last lastPortal
	if err := json.Unmarshal([]byte(text), &last); err != nil {
		return nil, err
	}
	return portal.NewLinks(last.Config, s, last.Mails, authority.PermitsMail)
}
