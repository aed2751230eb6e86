package front

import (
	"bytes"
	"encoding/json"
	"net"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/certmagic"
	"github.com/postern-project/postern"
)

// prepareIssuers puts Postern's CA, if there is one, in place of Caddy's own.
func prepareIssuers(apps map[string]json.RawMessage, names []string) error {
	if current().Issue == nil {
		return keepTrustStore(apps)
	}
	if err := replaceCaddyCA(apps); err != nil {
		return err
	}
	return issueInternally(apps, names)
}

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
		policies = append([]map[string]json.RawMessage{{
			"subjects": caddyconfig.JSON(ours, nil),
			"issuers":  ownIssuers,
		}}, policies...)
	}
	if policies, err := sayRefusals(policies, len(names) > len(internal(names))); err != nil || len(policies) == 0 {
		return err
	} else {
		automation["policies"] = caddyconfig.JSON(policies, nil)
	}
	app["automation"] = caddyconfig.JSON(automation, nil)
	apps["tls"] = caddyconfig.JSON(app, nil)
	return nil
}

// sayRefusals puts issuers that say what a public CA refuses in the place of
// Caddy's, also where a policy, or the whole configuration, leaves it to Caddy which
// CA issues.
func sayRefusals(policies []map[string]json.RawMessage, public bool) ([]map[string]json.RawMessage, error) {
	if public && !slices.ContainsFunc(policies, func(p map[string]json.RawMessage) bool {
		return p["subjects"] == nil
	}) {
		policies = append(policies, make(map[string]json.RawMessage))
	}
	for _, p := range policies {
		if !hasIssuer(p) {
			p["issuers"] = json.RawMessage(`[{"module":"acme"}]`)
		}
		var issuers []map[string]any
		if p["issuers"] == nil {
			continue
		}
		if err := json.Unmarshal(p["issuers"], &issuers); err != nil {
			return nil, err
		}
		followed := false
		for _, i := range slices.Backward(issuers) {
			switch i["module"] {
			case "postern":
				followed = true
			case "acme":
				i["module"] = "postern_acme"
				if followed {
					i["followed"] = true
				}
			}
		}
		p["issuers"] = caddyconfig.JSON(issuers, nil)
	}
	return policies, nil
}

// internal returns the names that no public CA issues certificates for, each
// once.
func internal(names []string) []string {
	var out []string
	for _, n := range names {
		if certmagic.SubjectQualifiesForCert(n) && (!certmagic.SubjectQualifiesForPublicCert(n) || notPublic(n)) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// notPublic reports whether a name is an address, or lies below no top-level
// domain of the public DNS. Those that Caddy knows already are not listed here.
func notPublic(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	last := name[strings.LastIndexByte(name, '.')+1:]
	return net.ParseIP(name) != nil || !strings.Contains(name, ".") || slices.Contains(privateDomains, last)
}

// privateDomains are reserved by RFC 2606 and RFC 6761, or withheld from the
// root zone by ICANN since private networks use them (corp, home, mail), or
// named for such use in RFC 6762, appendix G.
var privateDomains = []string{
	"corp", "example", "home", "intranet", "invalid", "lan", "localdomain", "mail", "private", "test",
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

// replaceCaddyCA lets Postern's CA issue what a configuration wants of Caddy's
// own, by "tls internal" or "local_certs". Settings of that CA are refused, since
// nothing would follow them.
func replaceCaddyCA(apps map[string]json.RawMessage) error {
	if err := withoutPKI(apps); err != nil {
		return err
	}
	var tls any
	if raw, ok := apps["tls"]; ok {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		if err := decoder.Decode(&tls); err != nil {
			return err
		}
		if err := replaceIssuers(tls); err != nil {
			return err
		}
		apps["tls"] = caddyconfig.JSON(tls, nil)
	}
	for _, word := range []string{"pki_root", "pki_intermediate"} {
		if bytes.Contains(apps["http"], []byte(`"provider":"`+word+`"`)) {
			return postern.Errorf(postern.Invalid, "trust_pool %s is about Caddy's own CA, which is not here", word).
				WithHint("to ask for client certificates of Postern's CA, use require")
		}
	}
	return nil
}

// replaceIssuers replaces Caddy's CA by Postern's in each list of issuers.
func replaceIssuers(v any) error {
	switch v := v.(type) {
	case []any:
		for _, value := range v {
			if err := replaceIssuers(value); err != nil {
				return err
			}
		}
	case map[string]any:
		if v["module"] == "internal" {
			if len(v) > 1 {
				return postern.Errorf(postern.Invalid,
					"the internal issuer is Postern's CA, which has no settings here").
					WithHint("write tls internal, or issuer postern, alone")
			}
			v["module"] = "postern"
		}
		for _, value := range v {
			if err := replaceIssuers(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutPKI takes Caddy's own CA out of a configuration that says no more of
// it than that it is not to be installed in the system's trust store.
func withoutPKI(apps map[string]json.RawMessage) error {
	raw, ok := apps["pki"]
	if !ok {
		return nil
	}
	var app struct {
		CAs map[string]map[string]any `json:"certificate_authorities"`
	}
	if err := json.Unmarshal(raw, &app); err != nil {
		return err
	}
	for id, ca := range app.CAs {
		delete(ca, "install_trust")
		if id != "local" || len(ca) > 0 {
			return postern.Errorf(postern.Invalid, "pki is about Caddy's own CA, which is not here").
				WithHint("take pki out: Postern's CA issues what tls internal asks for")
		}
	}
	delete(apps, "pki")
	return nil
}

// keepTrustStore makes sure that Caddy's own CA is never installed in the
// system's trust store.
func keepTrustStore(apps map[string]json.RawMessage) error {
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
