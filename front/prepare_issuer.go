package front

import (
	"encoding/json"
	"net"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/certmagic"
)

// issueInternally lets Postern's own CA issue the certificates of names that no
// public CA would, unless the configuration says otherwise for a name.
func issueInternally(apps map[string]json.RawMessage, names []string) error {
	var app map[string]json.RawMessage
	if raw, ok := apps["tls"]; ok {
		if err := json.Unmarshal(raw, &app); err != nil {
			return err
		}
	} else {
		app = make(map[string]json.RawMessage)
	}
	automation := make(map[string]json.RawMessage)
	if raw, ok := app["automation"]; ok {
		if err := json.Unmarshal(raw, &automation); err != nil {
			return err
		}
	}
	var policies []map[string]json.RawMessage
	if raw, ok := automation["policies"]; ok {
		if err := json.Unmarshal(raw, &policies); err != nil {
			return err
		}
	}
	for _, p := range policies {
		if subjects := subjectsOf(p); len(subjects) > 0 && len(internal(subjects)) == len(subjects) && !hasIssuer(p) {
			p["issuers"] = ownIssuers
		}
	}
	ours := slices.DeleteFunc(internal(names), func(n string) bool { return settled(policies, n) })
	if len(ours) > 0 {
		policies = append([]map[string]json.RawMessage{{"subjects": caddyconfig.JSON(ours, nil), "issuers": ownIssuers}}, policies...)
	}
	if len(policies) == 0 {
		return nil
	}
	automation["policies"] = caddyconfig.JSON(policies, nil)
	app["automation"] = caddyconfig.JSON(automation, nil)
	apps["tls"] = caddyconfig.JSON(app, nil)
	return nil
}

// internal returns the names that no public CA issues certificates for, each
// once.
func internal(names []string) []string {
	var out []string
	for _, n := range names {
		if certmagic.SubjectQualifiesForCert(n) && (!certmagic.SubjectQualifiesForPublicCert(n) || net.ParseIP(n) != nil) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var ownIssuers = json.RawMessage(`[{"module":"postern"}]`)

// settled reports whether a policy names this very name, or names an issuer
// for all.
func settled(policies []map[string]json.RawMessage, name string) bool {
	for _, p := range policies {
		if p["subjects"] == nil && hasIssuer(p) || slices.Contains(subjectsOf(p), name) {
			return true
		}
	}
	return false
}

func hasIssuer(policy map[string]json.RawMessage) bool {
	return policy["issuers"] != nil || policy["get_certificate"] != nil
}

func subjectsOf(policy map[string]json.RawMessage) (subjects []string) {
	_ = json.Unmarshal(policy["subjects"], &subjects) // Caddy says what is wrong with it
	return subjects
}

// keepTrustStore makes sure that Caddy's own CA, where a configuration uses
// it, is never installed in the system's trust store. Where none does, it is
// not made at all.
func keepTrustStore(apps map[string]json.RawMessage) error {
	if current().Issue != nil && apps["pki"] == nil && !usesCaddyCA(apps) {
		return nil
	}
	var app struct {
		CAs map[string]map[string]json.RawMessage `json:"certificate_authorities"`
	}
	if raw, ok := apps["pki"]; ok {
		if err := json.Unmarshal(raw, &app); err != nil {
			return err
		}
	}
	if app.CAs == nil {
		app.CAs = make(map[string]map[string]json.RawMessage)
	}
	if app.CAs["local"] == nil {
		app.CAs["local"] = make(map[string]json.RawMessage)
	}
	for _, ca := range app.CAs {
		if ca["install_trust"] == nil {
			ca["install_trust"] = json.RawMessage("false")
		}
	}
	raw, err := json.Marshal(app)
	apps["pki"] = raw
	return err
}

func usesCaddyCA(apps map[string]json.RawMessage) bool {
	for _, raw := range apps {
		if strings.Contains(string(raw), `"internal"`) || strings.Contains(string(raw), `"acme_server"`) {
			return true
		}
	}
	return false
}
