package front

import (
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern"
)

func init() {
	caddy.RegisterModule(App{})
	httpcaddyfile.RegisterGlobalOption("postern", parseOptions)
}

// App is the global postern block. The program that embeds Caddy reads its settings
// with [Options] before the configuration is loaded. As an app it only records on the
// timeline that a configuration was loaded.
type App struct {
	Mail      string     `json:"mail,omitempty"`    // smtp://…: how mail is sent
	Metrics   string     `json:"metrics,omitempty"` // address of /metrics, /livez and /readyz; "": not served
	Portal    *Portal    `json:"portal,omitempty"`
	Directory *Directory `json:"directory,omitempty"`

	Profiles []Profile `json:"profiles,omitempty"` // of the CA's certificates
	ACME     ACME      `json:"acme,omitzero"`
	Alerts   []Alert   `json:"alerts,omitempty"`
	Timeline *Timeline `json:"timeline,omitempty"` // nil: neither served nor witnessed

	Keep caddy.Duration `json:"keep,omitempty"` // how long expired certificates are kept; 0: a year

	Source string `json:"source,omitempty"` // the configuration's file, for the timeline

	httpPort int // of the whole configuration
}

// Portal says where the portal is and how it behaves.
type Portal struct {
	Addresses     []string `json:"addresses"` // of its site; the first is the one to show
	Name          string   `json:"name,omitempty"`
	SignUp        []string `json:"sign_up,omitempty"`         // mail domains whose addresses may enrol by themselves
	RecoverByMail bool     `json:"recover_by_mail,omitempty"` // a message is enough to recover
	Names         []string `json:"names,omitempty"`           // patterns of names that need no proof
	PrivateProofs []string `json:"private_proofs,omitempty"`  // private networks that proofs may reach
	TLS           string   `json:"tls,omitempty"`             // the site's tls directive, as a Caddyfile has it
	// groups whose members see the administrators' pages; default admin
	Admins []string `json:"admins,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "postern", New: func() caddy.Module { return new(App) }}
}

// Start notes that the configuration is in use.
func (a *App) Start() error {
	current().events.Add(postern.Event{Kind: postern.EventConfigLoaded, Outcome: postern.OK, Object: a.Source})
	return nil
}

// Stop does nothing.
func (*App) Stop() error { return nil }

// parseOptions reads the postern block, see [Blocks].
func parseOptions(d *caddyfile.Dispenser, _ any) (any, error) {
	var a App
	d.Next()
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("postern", optionWords, &a, d); err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "postern", Value: caddyconfig.JSON(a, nil)}, nil
}

// DefaultMetrics is the address of the metrics where none is given.
const DefaultMetrics = "127.0.0.1:9464"

func (a *App) parseMetrics(d *caddyfile.Dispenser) error {
	a.Metrics = DefaultMetrics
	if d.NextArg() {
		a.Metrics = d.Val()
	}
	if _, port, err := net.SplitHostPort(a.Metrics); err != nil || port == "" {
		return d.Errf("%q is not an address like %s", a.Metrics, DefaultMetrics)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func (a *App) parseKeep(d *caddyfile.Dispenser) error {
	if err := lifetime(d, &a.Keep); err != nil {
		return err
	}
	if time.Duration(a.Keep) < 30*24*time.Hour {
		return d.Err("expired certificates are kept for at least 30d")
	}
	return nil
}

func (a *App) parsePortal(d *caddyfile.Dispenser) error {
	if a.Portal != nil {
		return d.Err("there is one portal")
	}
	a.Portal = new(Portal)
	if err := some(d, &a.Portal.Addresses); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("portal", portalWords, a.Portal, d); err != nil {
			return err
		}
	}
	return nil
}

// parseTLS keeps a tls directive as it is written, for the portal's site.
func (p *Portal) parseTLS(d *caddyfile.Dispenser) error {
	if p.TLS != "" {
		return d.Err("there is one tls directive")
	}
	var b strings.Builder
	segment := d.NextSegment()
	for i, t := range segment {
		switch {
		case i > 0 && (t.Line != segment[i-1].Line || t.File != segment[i-1].File):
			b.WriteByte('\n')
		case i > 0:
			b.WriteByte(' ')
		}
		if t.Quoted() {
			b.WriteString(strconv.Quote(t.Text))
		} else {
			b.WriteString(t.Text)
		}
	}
	p.TLS = b.String()
	return nil
}

// Options returns the settings of the global postern block in an adapted
// configuration.
func Options(config []byte) (App, error) {
	var c struct {
		Apps struct {
			Postern App `json:"postern"`
			HTTP    struct {
				Port int `json:"http_port"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return App{}, postern.Errorf(postern.Invalid, "configuration: %w", err)
	}
	c.Apps.Postern.httpPort = c.Apps.HTTP.Port
	return c.Apps.Postern, nil
}

// PlainURL returns the address under which other hosts reach, over plain HTTP,
// what the portal's site serves that way: http://id.example.com, or "" if they
// cannot.
func (a App) PlainURL() string {
	if a.Portal == nil {
		return ""
	}
	u, err := url.Parse(a.Portal.URL())
	if err != nil {
		return ""
	}
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.IsLoopback() {
		return ""
	}
	if a.httpPort != 0 && a.httpPort != caddyhttp.DefaultHTTPPort {
		return "http://" + net.JoinHostPort(host, strconv.Itoa(a.httpPort))
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return "http://" + host
}

// URL returns the address of the portal as a visitor would follow it, without
// a slash at the end: https://id.example.com.
func (p *Portal) URL() string {
	host := p.Addresses[0]
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	return strings.TrimSuffix(host, "/")
}
