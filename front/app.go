package front

import (
	"encoding/json"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/postern-project/postern"
)

func init() {
	caddy.RegisterModule(App{})
	httpcaddyfile.RegisterGlobalOption("postern", parseOptions)
}

// App is the global postern block. Its settings are read by whoever runs
// Caddy, with [Options], before the configuration is loaded; as an app it only
// notes in the timeline that a configuration was.
type App struct {
	Mail   string   `json:"mail,omitempty"`   // smtp://… or a sendmail program: how the portal sends mail
	From   string   `json:"from,omitempty"`   // sender of the mail
	Portal []string `json:"portal,omitempty"` // addresses of the portal's site; the first is the one to show
	Source string   `json:"source,omitempty"` // the configuration's file, for the timeline
	Sites  int      `json:"sites,omitempty"`  // guarded ones
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "postern", New: func() caddy.Module { return new(App) }}
}

// Start notes that the configuration is in use.
func (a *App) Start() error {
	current().events.add(eventKey{kind: postern.EventConfigLoaded, object: a.Source}, postern.OK)
	return nil
}

// Stop does nothing.
func (*App) Stop() error { return nil }

// parseOptions reads
//
//	postern {
//		mail   smtp://localhost
//		from   postern@example.com
//		portal ADDRESS…
//	}
func parseOptions(d *caddyfile.Dispenser, _ any) (any, error) {
	var a App
	d.Next()
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "mail":
			if !d.AllArgs(&a.Mail) {
				return nil, d.ArgErr()
			}
		case "from":
			if !d.AllArgs(&a.From) {
				return nil, d.ArgErr()
			}
		case "portal":
			if err := some(d, &a.Portal); err != nil {
				return nil, err
			}
		default:
			return nil, d.Errf("postern knows mail, from and portal, but not %q", word)
		}
	}
	return httpcaddyfile.App{Name: "postern", Value: caddyconfig.JSON(a, nil)}, nil
}

// Options returns the settings of the global postern block in an adapted
// configuration.
func Options(config []byte) (App, error) {
	var c struct {
		Apps struct {
			Postern App `json:"postern"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return App{}, postern.Errorf(postern.Invalid, "configuration: %w", err)
	}
	return c.Apps.Postern, nil
}

// PortalURL returns the address of the portal as a visitor would follow it, or
// "".
func (a App) PortalURL() string {
	if len(a.Portal) == 0 {
		return ""
	}
	host := a.Portal[0]
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	return strings.TrimSuffix(host, "/") + "/"
}
