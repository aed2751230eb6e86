package front

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/postern-project/postern"
)

// Prepare puts the front door into an adapted configuration. On every server it
// takes forged identities off requests first. For each site with require
// directives it puts one guard before all of the site's handlers, checks in front of
// each handler that a rewritten path could reach, error routes included, asks
// for client certificates in that site's TLS handshakes and offers no HTTP/3. Names that no
// public CA serves get certificates from Postern's own, and Caddy's own CA never
// touches the system's trust store.
func Prepare(config []byte) ([]byte, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(config, &whole); err != nil {
		return nil, postern.Errorf(postern.Invalid, "configuration: %w", err)
	}
	apps := make(map[string]json.RawMessage)
	if raw, ok := whole["apps"]; ok {
		if err := json.Unmarshal(raw, &apps); err != nil {
			return nil, postern.Errorf(postern.Invalid, "configuration: apps: %w", err)
		}
	}
	names, err := prepareHTTP(apps)
	if err != nil {
		return nil, err
	}
	if current().Issue != nil {
		if err := issueInternally(apps, names); err != nil {
			return nil, err
		}
	}
	if err := keepTrustStore(apps); err != nil {
		return nil, err
	}
	if _, ok := apps["postern"]; !ok {
		apps["postern"] = json.RawMessage("{}")
	}
	if whole["apps"], err = json.Marshal(apps); err != nil {
		return nil, err
	}
	return json.Marshal(whole)
}

// prepareHTTP prepares all servers, and returns the names of their sites.
func prepareHTTP(apps map[string]json.RawMessage) (names []string, err error) {
	raw, ok := apps["http"]
	if !ok {
		return nil, nil
	}
	var app caddyhttp.App
	if err := json.Unmarshal(raw, &app); err != nil {
		return nil, postern.Errorf(postern.Invalid, "configuration: http: %w", err)
	}
	for name, s := range app.Servers {
		hosts, err := prepareServer(s, &app)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "server %s: %w", name, err)
		}
		if servesTLS(s, &app) {
			names = append(names, hosts...)
		}
	}
	apps["http"], err = json.Marshal(app)
	return names, err
}

// guardedSite is one site's guard and where it stands, or a site of services,
// which ask who comes without refusing anybody.
type guardedSite struct {
	hosts    []string
	guard    Guard
	services bool
}

func prepareServer(s *caddyhttp.Server, app *caddyhttp.App) (names []string, err error) {
	var sites []guardedSite
	for i := range s.Routes {
		hosts, err := hostsOf(s.Routes[i])
		if err != nil {
			return nil, err
		}
		names = append(names, hosts...)
		site, err := prepareSite(&s.Routes[i], hosts)
		if err != nil {
			return nil, err
		}
		if site != nil {
			sites = append(sites, *site)
		}
	}
	site, routes, err := guardRoutes(s.Routes, nil)
	switch {
	case err != nil:
		return nil, err
	case site == nil && hasHandler(s.Routes, "postern_services"):
		sites = append(sites, guardedSite{services: true})
	case site != nil:
		site.services = hasHandler(s.Routes, "postern_services")
		s.Routes = append(caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{guardJSON(site.guard)}}}, routes...)
		sites = append(sites, *site)
	}
	if len(sites) > 0 {
		if err := prepareGuarded(s, app, sites, names); err != nil {
			return nil, err
		}
	}
	if !servesTLS(s, app) && len(s.Protocols) == 0 {
		s.Protocols = []string{"h1"} // the others need TLS
	}
	entry := caddyconfig.JSONModuleObject(Entry{}, "handler", "postern_entry", nil)
	s.Routes = append(caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{entry}}}, s.Routes...)
	return names, nil
}

// prepareGuarded does what concerns a whole server that has a guarded site.
func prepareGuarded(s *caddyhttp.Server, app *caddyhttp.App, sites []guardedSite, names []string) error {
	if s.Errors != nil {
		for i := range s.Errors.Routes {
			if err := checkRoute(&s.Errors.Routes[i], true); err != nil {
				return err
			}
		}
	}
	for _, r := range s.NamedRoutes {
		if err := checkRoute(r, false); err != nil {
			return err
		}
	}
	sites = slices.DeleteFunc(sites, func(s guardedSite) bool { return len(s.trust()) == 0 })
	if len(sites) == 0 || !servesTLS(s, app) {
		return nil
	}
	no := false
	s.StrictSNIHost = &no // the guards are stricter where it matters, and kinder where not
	s.Protocols = withoutHTTP3(s.Protocols)
	for i := range s.ListenProtocols {
		if s.ListenProtocols[i] != nil {
			s.ListenProtocols[i] = withoutHTTP3(s.ListenProtocols[i])
		}
	}
	return askForCertificates(s, sites, names)
}

func withoutHTTP3(protocols []string) []string {
	if len(protocols) == 0 {
		return []string{"h1", "h2"}
	}
	return slices.DeleteFunc(slices.Clone(protocols), func(p string) bool { return p == "h3" })
}

// prepareSite prepares a route of a server that holds a site's routes: one
// subroute.
func prepareSite(r *caddyhttp.Route, hosts []string) (*guardedSite, error) {
	for i, raw := range r.HandlersRaw {
		if handlerName(raw) != "subroute" {
			continue
		}
		var sub map[string]json.RawMessage
		if err := json.Unmarshal(raw, &sub); err != nil {
			return nil, err
		}
		var routes caddyhttp.RouteList
		if err := json.Unmarshal(sub["routes"], &routes); err != nil && sub["routes"] != nil {
			return nil, err
		}
		site, routes, err := guardRoutes(routes, hosts)
		services := mentions(routes, `"postern_services"`)
		if site == nil && err == nil && services {
			return &guardedSite{hosts: hosts, services: true}, nil
		}
		if site == nil || err != nil {
			if err == nil && strings.Contains(string(raw), `"postern_require"`) {
				err = fmt.Errorf("require stands at the top of a site")
			}
			return nil, err
		}
		if sub["routes"], err = json.Marshal(routes); err != nil {
			return nil, err
		}
		if raw, ok := sub["errors"]; ok {
			if sub["errors"], err = checkJSON(raw, true); err != nil {
				return nil, err
			}
		}
		if r.HandlersRaw[i], err = json.Marshal(sub); err != nil {
			return nil, err
		}
		site.services = services
		r.HandlersRaw = slices.Insert(r.HandlersRaw, i, guardJSON(site.guard))
		return site, nil
	}
	return nil, nil
}

// guardRoutes takes the require directives out of a site's routes, makes one
// guard of them, and checks what remains. Without directives it returns nil.
func guardRoutes(routes caddyhttp.RouteList, hosts []string) (*guardedSite, caddyhttp.RouteList, error) {
	site := &guardedSite{hosts: hosts, guard: Guard{Hosts: hosts}}
	var rest caddyhttp.RouteList
	for _, r := range routes {
		kept := r.HandlersRaw[:0:0]
		for _, raw := range r.HandlersRaw {
			if handlerName(raw) != "postern_require" {
				kept = append(kept, raw)
				continue
			}
			var d Require
			if err := json.Unmarshal(raw, &d); err != nil {
				return nil, nil, err
			}
			site.guard.Require = append(site.guard.Require, d)
		}
		if len(kept) > 0 || len(r.HandlersRaw) == 0 {
			r.HandlersRaw = kept
			rest = append(rest, r)
		}
	}
	if len(site.guard.Require) == 0 {
		return nil, routes, nil
	}
	for i := range rest {
		for _, raw := range rest[i].HandlersRaw {
			site.guard.Indexes = append(site.guard.Indexes, indexNames(raw)...)
		}
		if err := checkRoute(&rest[i], false); err != nil {
			return nil, nil, err
		}
	}
	site.guard.Named = mentions(rest, "auth.user")
	return site, rest, nil
}

// mentions reports whether a text stands anywhere in routes.
func mentions(routes caddyhttp.RouteList, text string) bool {
	for _, r := range routes {
		for _, raw := range r.HandlersRaw {
			if strings.Contains(string(raw), text) {
				return true
			}
		}
	}
	return false
}

// hasHandler reports whether a handler stands directly in routes.
func hasHandler(routes caddyhttp.RouteList, name string) bool {
	for _, r := range routes {
		if slices.ContainsFunc(r.HandlersRaw, func(raw json.RawMessage) bool { return handlerName(raw) == name }) {
			return true
		}
	}
	return false
}

func guardJSON(g Guard) json.RawMessage {
	return caddyconfig.JSONModuleObject(g, "handler", "postern_guard", nil)
}

func handlerName(raw json.RawMessage) string {
	var h struct {
		Handler string `json:"handler"`
	}
	_ = json.Unmarshal(raw, &h) // no name, no match
	return h.Handler
}

// passive are the handlers that neither answer a request nor pass it on by
// themselves. All others are checked, also those that we do not know.
var passive = map[string]bool{
	"vars": true, "map": true, "headers": true, "encode": true, "request_body": true, "tracing": true,
	"log_append": true, "rewrite": true, "subroute": true, "invoke": true, "postern_checked": true,
	"postern_guard": true, "postern_entry": true, "intercept": true, "timeouts": true,
}

// checkRoute wraps the handlers of a route.
func checkRoute(r *caddyhttp.Route, errors bool) error {
	for i, raw := range r.HandlersRaw {
		checked, err := checkHandler(raw, errors)
		if err != nil {
			return err
		}
		r.HandlersRaw[i] = checked
	}
	return nil
}

// checkHandler wraps a handler unless it is passive, and those inside it.
func checkHandler(raw json.RawMessage, errors bool) (json.RawMessage, error) {
	name := handlerName(raw)
	inner, err := checkJSON(raw, errors)
	if err != nil || passive[name] {
		return inner, err
	}
	if name == "postern_require" {
		return nil, fmt.Errorf("require stands at the top of a site")
	}
	proxy := name != "file_server" && name != "static_response" && name != "error"
	if inner, err = withFastCGI(inner); err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(Checked{HandlerRaw: inner, Proxy: proxy, Errors: errors}, "handler", "postern_checked", nil), nil
}

// checkJSON wraps the handlers in all routes anywhere inside a value: those of
// subroutes, of answers that a proxy handles, and of modules that we do not
// know.
func checkJSON(raw json.RawMessage, errors bool) (json.RawMessage, error) {
	trimmed := strings.TrimSpace(string(raw))
	switch {
	case strings.HasPrefix(trimmed, "{"):
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, err
		}
		for key, value := range object {
			checked, err := checkMember(key, value, errors)
			if err != nil {
				return nil, err
			}
			object[key] = checked
		}
		return json.Marshal(object)
	case strings.HasPrefix(trimmed, "["):
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		for i, value := range list {
			checked, err := checkJSON(value, errors)
			if err != nil {
				return nil, err
			}
			list[i] = checked
		}
		return json.Marshal(list)
	}
	return raw, nil
}

func checkMember(key string, value json.RawMessage, errors bool) (json.RawMessage, error) {
	var handlers []json.RawMessage
	if key != "handle" || json.Unmarshal(value, &handlers) != nil {
		return checkJSON(value, errors)
	}
	for i, h := range handlers {
		checked, err := checkHandler(h, errors)
		if err != nil {
			return nil, err
		}
		handlers[i] = checked
	}
	return json.Marshal(handlers)
}

// withFastCGI gives a proxy that speaks FastCGI our transport.
func withFastCGI(raw json.RawMessage) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil || object["transport"] == nil {
		return raw, nil
	}
	var transport map[string]json.RawMessage
	if err := json.Unmarshal(object["transport"], &transport); err != nil {
		return nil, err
	}
	if string(transport["protocol"]) != `"fastcgi"` {
		return raw, nil
	}
	transport["protocol"] = json.RawMessage(`"postern_fastcgi"`)
	var err error
	if object["transport"], err = json.Marshal(transport); err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// indexNames collects the names of index pages in a handler and those inside it.
func indexNames(raw json.RawMessage) (names []string) {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				if list, ok := value.([]any); ok && (key == "index_names" || key == "try_files") {
					for _, n := range list {
						if s, ok := n.(string); ok {
							names = append(names, s[strings.LastIndexByte(s, '/')+1:])
						}
					}
				}
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	walk(v)
	slices.Sort(names)
	return slices.Compact(names)
}

// hostsOf returns the host names that a route is for.
func hostsOf(r caddyhttp.Route) (hosts []string, err error) {
	for _, set := range r.MatcherSetsRaw {
		if raw, ok := set["host"]; ok {
			var names []string
			if err := json.Unmarshal(raw, &names); err != nil {
				return nil, err
			}
			hosts = append(hosts, names...)
		}
	}
	return hosts, nil
}

// servesTLS reports whether a server speaks TLS, explicitly or because Caddy
// will make it.
func servesTLS(s *caddyhttp.Server, app *caddyhttp.App) bool {
	if len(s.TLSConnPolicies) > 0 {
		return true
	}
	if s.AutoHTTPS != nil && s.AutoHTTPS.Disabled {
		return false
	}
	port := app.HTTPPort
	if port == 0 {
		port = caddyhttp.DefaultHTTPPort
	}
	for _, l := range s.Listen {
		a, err := caddy.ParseNetworkAddress(l)
		if err != nil || a.StartPort != uint(port) || a.EndPort != uint(port) {
			return !allSkipped(s)
		}
	}
	return false
}

// allSkipped reports whether every name on the server is kept from automatic
// HTTPS, as http:// addresses are.
func allSkipped(s *caddyhttp.Server) bool {
	if s.AutoHTTPS == nil || len(s.AutoHTTPS.Skip) == 0 {
		return false
	}
	for _, r := range s.Routes {
		hosts, err := hostsOf(r)
		if err != nil {
			return false
		}
		for _, h := range hosts {
			if !slices.Contains(s.AutoHTTPS.Skip, h) {
				return false
			}
		}
	}
	return true
}

// askForCertificates changes the server's TLS policies so that handshakes for
// guarded sites ask for certificates and others do not, also where a guarded
// site's wildcard covers another's name. A handshake that names no host asks for those
// of all guarded sites.
func askForCertificates(s *caddyhttp.Server, sites []guardedSite, names []string) error {
	if len(s.TLSConnPolicies) == 0 {
		s.TLSConnPolicies = caddytls.ConnectionPolicies{new(caddytls.ConnectionPolicy)}
	}
	asking := quietPolicies(s.TLSConnPolicies, sites, names)
	var all []string
	for _, site := range sites {
		trust := site.trust()
		all = append(all, trust...)
		if len(site.hosts) == 0 {
			if err := askEverybody(s, trust); err != nil {
				return err
			}
			continue
		}
		for _, host := range site.hosts {
			p, err := asker(policyFor(s.TLSConnPolicies, host), trust)
			if err != nil {
				return err
			}
			p.MatchersRaw = caddy.ModuleMap{"sni": caddyconfig.JSON([]string{host}, nil)}
			asking = append(asking, p)
		}
	}
	slices.Sort(all)
	p, err := asker(policyFor(s.TLSConnPolicies, ""), slices.Compact(all))
	if err != nil {
		return err
	}
	p.MatchersRaw = caddy.ModuleMap{"postern_no_name": json.RawMessage("{}")}
	for _, site := range sites {
		if p.DefaultSNI == "" && len(site.hosts) > 0 {
			p.DefaultSNI = site.hosts[0] // some certificate is better than none
		}
	}
	s.TLSConnPolicies = append(append(asking, s.TLSConnPolicies...), p)
	sortCatchAllLast(s.TLSConnPolicies)
	return nil
}

// quietPolicies are the policies of names that are not guarded, though the
// wildcard of a guarded site covers them: they stand before it.
func quietPolicies(policies caddytls.ConnectionPolicies, sites []guardedSite, names []string) (quiet caddytls.ConnectionPolicies) {
	for _, name := range names {
		covered := false
		for _, site := range sites {
			if slices.Contains(site.hosts, name) {
				covered = false
				break
			}
			covered = covered || slices.ContainsFunc(site.hosts, func(h string) bool { return certmagic.MatchWildcard(name, h) })
		}
		if covered {
			p := *policyFor(policies, name)
			p.MatchersRaw = caddy.ModuleMap{"sni": caddyconfig.JSON([]string{name}, nil)}
			quiet = append(quiet, &p)
		}
	}
	return quiet
}

// trust returns the files of all client CAs that the site's guards count; none
// if no guard asks for a certificate.
func (s guardedSite) trust() []string {
	var files []string
	if s.services && len(current().ClientCAs) > 0 {
		files = append(files, ownWord)
	}
	for _, r := range s.guard.Require {
		if r.Anyone {
			continue
		}
		if len(r.Trust) == 0 {
			files = append(files, ownWord)
		}
		files = append(files, r.Trust...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// askEverybody makes the policies that match any host ask.
func askEverybody(s *caddyhttp.Server, trust []string) error {
	for i, p := range s.TLSConnPolicies {
		if len(p.MatchersRaw) > 0 {
			continue
		}
		asking, err := asker(p, trust)
		if err != nil {
			return err
		}
		s.TLSConnPolicies[i] = asking
	}
	return nil
}

// policyFor returns the policy that a handshake for host would get now.
func policyFor(policies caddytls.ConnectionPolicies, host string) *caddytls.ConnectionPolicy {
	for _, p := range policies {
		raw, named := p.MatchersRaw["sni"]
		if len(p.MatchersRaw) == 0 {
			return p
		}
		var names []string
		if !named || len(p.MatchersRaw) > 1 || json.Unmarshal(raw, &names) != nil {
			continue
		}
		for _, n := range names {
			if certmagic.MatchWildcard(strings.ToLower(host), strings.ToLower(n)) {
				return p
			}
		}
	}
	return new(caddytls.ConnectionPolicy)
}

// asker returns a copy of a policy that asks for certificates of these CAs
// without insisting.
func asker(p *caddytls.ConnectionPolicy, trust []string) (*caddytls.ConnectionPolicy, error) {
	c := *p
	if c.ClientAuthentication != nil {
		if slices.EqualFunc(c.ClientAuthentication.VerifiersRaw, []json.RawMessage{verifierJSON(trust)}, equalJSON) {
			return &c, nil
		}
		return nil, fmt.Errorf("require asks for client certificates itself: take client_auth out of the site's tls directive")
	}
	c.ClientAuthentication = &caddytls.ClientAuthentication{
		Mode:         "request",
		CARaw:        caddyconfig.JSONModuleObject(Pool{Trust: trust}, "provider", "postern", nil),
		VerifiersRaw: []json.RawMessage{verifierJSON(trust)},
	}
	return &c, nil
}

func equalJSON(a, b json.RawMessage) bool { return string(a) == string(b) }

func verifierJSON(trust []string) json.RawMessage {
	return caddyconfig.JSONModuleObject(Verifier{Trust: trust}, "verifier", "postern", nil)
}

// sortCatchAllLast keeps the order, but for policies without a matcher, which
// would hide those behind them.
func sortCatchAllLast(policies caddytls.ConnectionPolicies) {
	slices.SortStableFunc(policies, func(a, b *caddytls.ConnectionPolicy) int {
		return catchAll(a) - catchAll(b)
	})
}

func catchAll(p *caddytls.ConnectionPolicy) int {
	if len(p.MatchersRaw) == 0 {
		return 1
	}
	return 0
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
