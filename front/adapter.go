package front

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

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
	if len(o.Portal) > 0 && !bytes.Contains(config, []byte(`"postern_services"`)) {
		if config, warnings, err = caddyfile.Adapt(append(body, portalSite(o.Portal)...), options); err != nil {
			return nil, warnings, err
		}
	}
	prepared, err := Prepare(config)
	return prepared, warnings, err
}

// portalSite is the site that serves the portal and the other services, over
// HTTPS, and over plain HTTP what has to be.
func portalSite(addresses []string) string {
	var sites []string
	for _, a := range addresses {
		sites = append(sites, a)
		if host := strings.TrimPrefix(a, "https://"); !strings.Contains(host, "://") {
			name, _, _ := strings.Cut(host, ":")
			sites = append(sites, "http://"+name)
		}
	}
	return fmt.Sprintf("\n%s {\n\tpostern_services\n}\n", strings.Join(sites, ", "))
}

// Adapt turns a Caddyfile into a configuration that can be loaded, and notes
// the file's name in it.
func Adapt(body []byte, file string) ([]byte, []caddyconfig.Warning, error) {
	config, warnings, err := adapter{}.Adapt(body, map[string]any{"filename": file})
	if err != nil {
		return nil, warnings, postern.Errorf(postern.Invalid, "%w", err)
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(config, &whole); err != nil {
		return nil, warnings, err
	}
	return config, warnings, nil
}
