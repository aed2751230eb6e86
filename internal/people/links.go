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
var ErrNoPortal = errors.New("no portal has run here yet, so there is no address for a link")

// setting is the name of the setting with the portal's configuration.
const setting = "portal"

// lastPortal is the configuration of the portal that last ran.
type lastPortal struct {
	Config portal.Config
	Mails  bool
	Admins []string `json:",omitempty"`
}

// RememberPortal stores the configuration of a portal, whether it sends mail, and the
// groups of its administrators, for commands that run without it.
func RememberPortal(ctx context.Context, db *store.DB, c portal.Config, mails bool, admins []string) error {
	text, err := json.Marshal(lastPortal{Config: c, Mails: mails, Admins: admins})
	if err != nil {
		return err
	}
	return db.Portal().SetPortalSetting(ctx, setting, string(text))
}

// Links returns Links to the portal that last ran on this database; NotFound
// (ErrNoPortal) if none ever did.
func Links(ctx context.Context, db *store.DB, authority *ca.Authority) (*portal.Links, error) {
	s := db.Portal()
	last, err := rememberedPortal(ctx, s)
	if err != nil {
		return nil, err
	}
	if last == nil {
		return nil, postern.Errorf(postern.NotFound, "%w", ErrNoPortal).
			WithHint("start the server, or issue the certificate here")
	}
	return portal.NewLinks(last.Config, s, last.Mails, authority.PermitsMail)
}

// PortalURL returns the address of the portal that last ran on this database; NotFound if
// none ever did.
func PortalURL(ctx context.Context, db *store.DB) (string, error) {
	last, err := rememberedPortal(ctx, db.Portal())
	if err == nil && last == nil {
		err = postern.Errorf(postern.NotFound, "no portal has run here yet, so there is no address to join at").
			WithHint("name the address by which hosts reach this server")
	}
	if err != nil {
		return "", err
	}
	return last.Config.URL, nil
}

// rememberedPortal returns what RememberPortal stored, or nil.
func rememberedPortal(ctx context.Context, s store.Portal) (last *lastPortal, err error) {
	text, err := s.PortalSetting(ctx, setting)
	if err != nil || text == "" {
		return nil, err
	}
	last = new(lastPortal)
	return last, json.Unmarshal([]byte(text), last)
}

// administrators returns the groups of the administrators.
func administrators(ctx context.Context, s store.Portal) ([]string, error) {
	last, err := rememberedPortal(ctx, s)
	if err != nil || last == nil || len(last.Admins) == 0 {
		return []string{AdminGroup}, err
	}
	return last.Admins, nil
}
