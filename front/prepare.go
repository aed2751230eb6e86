package front

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/postern-project/postern"
)

// Prepare adds the guards to an adapted configuration. On every server it first removes
// forged identity headers from requests. For each site with require
// directives it puts one guard before all of the site's handlers, checks in front of
// each handler that a rewritten path could reach, error routes included, asks
// for client certificates in that site's TLS handshakes and offers no HTTP/3. Names that no
// public CA serves, and sites that name Caddy's own CA, get certificates from
// Postern's; where there is none, Caddy's own never touches the system's trust store.
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
	if err := prepareIssuers(apps, names); err != nil {
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
	entry := new(Entry)
	for name, s := range app.Servers {
		hosts, err := prepareServer(s, &app, entry)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "server %s: %w", name, err)
		}
		if servesTLS(s, &app) {
			names = append(names, hosts...)
		}
	}
	slices.Sort(entry.Headers)
	entry.Headers = slices.Compact(entry.Headers)
	handler := caddyconfig.JSONModuleObject(entry, "handler", "postern_entry", nil)
	for _, s := range app.Servers {
		s.Listen = onPassed(s.Listen)
		s.Routes = append(caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{handler}}}, s.Routes...)
	}
	apps["http"], err = json.Marshal(app)
	return names, err
}

// guardedSite is one site's guard and its place, or a site of services, which ask for a
// certificate without refusing clients that have none.
type guardedSite struct {
	hosts    []string
	guard    Guard
	services bool
}

// prepareServer prepares one server but for its first handler, to which it adds the names
// of the headers that the server's guards set.
func prepareServer(s *caddyhttp.Server, app *caddyhttp.App, entry *Entry) (names []string, err error) {
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
	for _, site := range sites {
		entry.Headers = append(entry.Headers, site.guard.headerNames()...)
	}
	if len(sites) > 0 {
		if err := prepareGuarded(s, app, sites, names); err != nil {
			return nil, err
		}
	}
	if !servesTLS(s, app) && len(s.Protocols) == 0 {
		s.Protocols = []string{"h1"} // the others need TLS
	}
	return names, nil
}

// prepareGuarded does what concerns a whole server that has a guarded site.
func prepareGuarded(s *caddyhttp.Server, app *caddyhttp.App, sites []guardedSite, names []string) error {
	if s.Errors != nil {
		for i := range s.Errors.Routes {
			if err := checkRoute(&s.Errors.Routes[i]); err != nil {
				return err
			}
		}
	}
	for _, r := range s.NamedRoutes {
		if err := checkRoute(r); err != nil {
			return err
		}
	}
	sites = slices.DeleteFunc(sites, func(s guardedSite) bool { return len(s.trust()) == 0 })
	if len(sites) == 0 || !servesTLS(s, app) {
		return nil
	}
	// The guards compare the handshake's name with the request's themselves, where it
	// matters; certificates that Caddy demands for another site hold by this alone.
	strict := demandsCertificates(s)
	if !strict || s.StrictSNIHost == nil {
		s.StrictSNIHost = &strict
	}
	if err := refuseUnverified(s, sites, strict); err != nil {
		return err
	}
	s.Protocols = withoutHTTP3(s.Protocols)
	for i := range s.ListenProtocols {
		if s.ListenProtocols[i] != nil {
			s.ListenProtocols[i] = withoutHTTP3(s.ListenProtocols[i])
		}
	}
	return askForCertificates(s, sites, names)
}

// shown is how the placeholders begin that stand for the certificate as a client
// showed it, which the handshake of a guarded site does not verify.
const shown = "http.request.tls.client."

// refuseUnverified refuses those placeholders on each site that a connection
// made for a guarded one reaches: all of the server, or, where the
// handshake's name is held against the request's, the guarded sites.
func refuseUnverified(s *caddyhttp.Server, sites []guardedSite, strict bool) error {
	reached := any(s)
	if strict {
		var routes caddyhttp.RouteList
		for _, r := range s.Routes {
			hosts, err := hostsOf(r)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(sites, func(s guardedSite) bool { return slices.Equal(s.hosts, hosts) }) {
				routes = append(routes, r)
			}
		}
		reached = []any{routes, s.NamedRoutes, s.Errors}
	}
	raw, err := json.Marshal(reached)
	if err != nil {
		return err
	}
	if strings.Contains(string(raw), shown) {
		return postern.Errorf(postern.Invalid,
			"{%s*} is the certificate as a client shows it, not verified: any client can make one", shown).
			WithHint("header_up in the guard's block passes what the verified certificate says to the application, " +
				"beside the " +
				"headers Client-Cert, Postern-Person, Postern-Email and Postern-Groups, or the variables " +
				"SSL_CLIENT_*; " +
				"in the configuration {http.auth.user.id} is the person who passed")
	}
	return nil
}

// demandsCertificates reports whether a site of the server has a client_auth of
// its own.
func demandsCertificates(s *caddyhttp.Server) bool {
	return slices.ContainsFunc(s.TLSConnPolicies, func(p *caddytls.ConnectionPolicy) bool {
		return p.ClientAuthentication != nil
	})
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
			if sub["errors"], err = checkJSON(raw); err != nil {
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
		if err := checkRoute(&rest[i]); err != nil {
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
