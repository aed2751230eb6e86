package front

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/postern-project/postern"
)

func init() { caddyconfig.RegisterAdapter("postern", adapter{}) }

// adapter is the Caddyfile's adapter followed by Prepare.
type adapter struct{}

// Adapt turns a Caddyfile into a configuration.
func (adapter) Adapt(body []byte, options map[string]any) ([]byte, []caddyconfig.Warning, error) {
	caddyfile := caddyconfig.GetAdapter("caddyfile")
	if caddyfile == nil {
		return nil, nil, postern.Errorf(postern.Internal, "this Caddy has no Caddyfile adapter")
	}
	config, warnings, err := caddyfile.Adapt(body, options)
	if err != nil {
		return nil, warnings, err
	}
	o, err := Options(config)
	if err != nil {
		return nil, warnings, err
	}
	served := bytes.Contains(config, []byte(`"postern_services"`))
	switch {
	case o.Portal != nil && !served:
		if config, warnings, err = caddyfile.Adapt(append(body, portalSite(o.Portal)...), options); err != nil {
			return nil, warnings, err
		}
	case o.Portal != nil && o.Portal.TLS != "":
		return nil, warnings, postern.Errorf(postern.Invalid,
			"tls in the portal's block is for a portal without a site of its own").
			WithHint("write tls in the site that has postern_services")
	}
	prepared, err := Prepare(config)
	return prepared, warnings, err
}

// portalSite are the sites that serve the portal and the other services, over
// HTTPS, and over plain HTTP what has to be.
func portalSite(p *Portal) string {
	var secure, plain []string
	for _, a := range p.Addresses {
		if strings.HasPrefix(a, "http://") {
			plain = append(plain, a)
			continue
		}
		secure = append(secure, a)
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "https://"), ":")
		plain = append(plain, "http://"+name)
	}
	site := fmt.Sprintf("\n%s {\n\tpostern_services\n}\n", strings.Join(plain, ", "))
	if len(secure) > 0 {
		site += fmt.Sprintf("%s {\n\t%s\n\tpostern_services\n}\n", strings.Join(secure, ", "), p.TLS)
	}
	return site
}

// Adapt turns a Caddyfile into a configuration that can be loaded. The file's
// name is for messages, and for the timeline.
func Adapt(body []byte, file string) ([]byte, []caddyconfig.Warning, error) {
	config, warnings, err := adapter{}.Adapt(body, map[string]any{"filename": file})
	if err != nil {
		if _, ok := errors.AsType[*postern.Error](err); ok {
			return nil, warnings, err
		}
		return nil, warnings, postern.Errorf(postern.Invalid, "%w", err)
	}
	config, err = with(config, "apps", "postern", "source", file)
	return config, warnings, err
}

// with returns a configuration in which the value at a path of keys is set.
func with(config []byte, path ...any) ([]byte, error) {
	var whole map[string]any
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	if err := decoder.Decode(&whole); err != nil {
		return nil, postern.Errorf(postern.Invalid, "configuration: %w", err)
	}
	at := whole
	for _, key := range path[:len(path)-2] {
		next, ok := at[key.(string)].(map[string]any)
		if !ok {
			next = make(map[string]any)
			at[key.(string)] = next
		}
		at = next
	}
	at[path[len(path)-2].(string)] = path[len(path)-1]
	return json.Marshal(whole)
}

// Defaults are the settings of Caddy that the embedding program chooses where the
// configuration has none.
type Defaults struct {
	Storage string        // directory of certificates and keys of public CAs
	Verbose bool          // log successful requests, too
	JSON    bool          // log JSON, also to a terminal
	Grace   time.Duration // how long pending requests may take when a configuration ends
}

// Apply puts the defaults into a configuration. Caddy's administration
// interface stays off unless the configuration turns it on.
func (d Defaults) Apply(config []byte) ([]byte, error) {
	var c struct {
		Admin   json.RawMessage `json:"admin"`
		Storage json.RawMessage `json:"storage"`
		Logging struct {
			Logs map[string]map[string]any `json:"logs"`
		} `json:"logging"`
		Apps struct {
			HTTP struct {
				Grace json.RawMessage `json:"grace_period"`
			} `json:"http"`
			TLS struct {
				Automation struct {
					Clean json.RawMessage `json:"storage_clean_interval"`
				} `json:"automation"`
			} `json:"tls"`
		} `json:"apps"`
	}
	err := json.Unmarshal(config, &c)
	set := func(missing bool, path ...any) {
		if missing && err == nil {
			config, err = with(config, path...)
		}
	}
	set(c.Admin == nil, "admin", "disabled", true)
	set(c.Admin == nil, "admin", "config", map[string]any{"persist": false})
	set(c.Storage == nil && d.Storage != "", "storage", map[string]any{"module": "file_system", "root": d.Storage})
	// Caddy cleans its storage at each start, and now and then removes the
	// directory that a site's first certificate is about to be put into: the site
	// then has none for a minute. What is left uncleaned are a few kilobytes a
	// site that is served no longer.
	set(c.Apps.TLS.Automation.Clean == nil, "apps", "tls", "disable_storage_clean", true)
	// A site's access log leaves itself out of the default one, and says no
	// more of that.
	log := c.Logging.Logs["default"]
	if more := d.logging(log); len(more) > 0 {
		set(len(log) == 0 || len(log) == 1 && log["exclude"] != nil, "logging", "logs", "default", more)
	}
	set(c.Apps.HTTP.Grace == nil && d.Grace > 0, "apps", "http", "grace_period", d.Grace.String())
	return config, err
}

// logging returns what is set for the default log, which may exclude loggers already.
func (d Defaults) logging(log map[string]any) map[string]any {
	set := map[string]any{}
	exclude, _ := log["exclude"].([]any)
	if !d.Verbose {
		// They warn of what was meant, and say in many lines what PublicIssuer says in one.
		exclude = append(exclude, "admin", "http.auto_https", "http.acme_client", "tls.issuance.postern_acme",
			"tls.obtain", "tls.renew")
		set["level"] = "WARN"
	}
	if d.JSON {
		set["encoder"] = map[string]any{"format": "json"}
	}
	if len(set) > 0 && len(exclude) > 0 {
		set["exclude"] = exclude
	}
	return set
}
