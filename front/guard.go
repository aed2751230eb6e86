package front

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
)

func init() { caddy.RegisterModule(Guard{}) }

// Guard is the first handler of a site with require directives, for all of them
// together. It judges the request's path and puts a [requestState] into the request, by
// which each [Checked] handler behind it sees whether the path was rewritten.
type Guard struct {
	Hosts   []string  `json:"hosts,omitempty"` // the site's names, for redirects of requests without one
	Require []Require `json:"require"`
	Indexes []string  `json:"indexes,omitempty"` // names of index pages that the site's file servers use
	Named   bool      `json:"named,omitempty"`   // the configuration uses the placeholder for the user's name

	named     bool // so, or the server logs accesses
	byPath    bool // an index page may be judged otherwise than its directory
	guards    []siteGuard
	server    *caddyhttp.Server
	live      *live
	httpsPort int
}

type siteGuard struct {
	*gate.Guard
	trust   *trust
	name    string // its first path, for the timeline
	audit   bool   // access is granted only while it is recorded
	closed  int    // status of a refusal where no certificate is asked for
	headers []headerUp
	reads   bool // whether a header reads more than the certificate and the person
}

// CaddyModule returns the Caddy module information.
func (Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.postern_guard", New: func() caddy.Module { return new(Guard) }}
}

// Provision compiles the guards and reads the CAs that they trust.
func (g *Guard) Provision(ctx caddy.Context) error {
	g.live = current()
	g.httpsPort = httpsPort(ctx)
	sets := make(map[string]*trust) // so that a connection is judged once for all guards alike
	for _, r := range g.Require {
		compiled, err := gate.New(r.config(g.Indexes))
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%q %q", r.Trust, r.CRLs)
		t, ok := sets[key]
		if !ok && !compiled.Anyone() {
			if t, err = loadTrust(g.live, r.Trust, r.CRLs); err != nil {
				return err
			}
			sets[key] = t
		}
		g.byPath = g.byPath || compiled.ByPath()
		headers, err := compileHeaders(r.HeaderUp)
		if err != nil {
			return err
		}
		g.guards = append(g.guards, siteGuard{
			Guard: compiled, trust: t, name: r.Paths[0], closed: cmp.Or(r.Status, http.StatusForbidden),
			audit:   r.Audit,
			headers: headers,
			reads:   slices.ContainsFunc(headers, func(h headerUp) bool { return h.value.ReadsRequest() }),
		})
	}
	g.warnOfUnknown(ctx)
	g.named = g.Named
	if s, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		g.named = g.named || s.Logs != nil
		g.server = s
		guarded.add(s, g)
	}
	return nil
}

// Cleanup forgets the server when its configuration ends.
func (g *Guard) Cleanup() error {
	guarded.remove(g.server)
	return nil
}

func httpsPort(ctx caddy.Context) int {
	for _, m := range ctx.Modules() {
		if app, ok := m.(*caddyhttp.App); ok && app.HTTPSPort != 0 {
			return app.HTTPSPort
		}
	}
	return caddyhttp.DefaultHTTPSPort
}

// requestState is what a request's guard has decided so far.
type requestState struct {
	guard    *Guard
	judged   reaches           // what was judged last, and let through
	identity *identity         // set once the request passed a guard
	headers  map[string]string // by headers' names, "" for none
	refused  bool
	passed   []authorizationRequest // the guards that let the request through
}

// reaches are the fields of a request that decide which handler it reaches.
type reaches struct{ path, rawPath, query, method string }

func reachesOf(r *http.Request) reaches {
	return reaches{r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.Method}
}

const stateVar = "postern.state"

func stateOf(r *http.Request) *requestState {
	p, _ := caddyhttp.GetVar(r.Context(), stateVar).(*requestState)
	return p
}

// ServeHTTP judges the path that the client asked for.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	stripPaths(r.Header)
	p := &requestState{guard: g}
	caddyhttp.SetVar(r.Context(), stateVar, p)
	if !p.judge(w, r) {
		return nil
	}
	return next.ServeHTTP(w, r)
}

// judge reports whether the request may go on with the path that it has now.
// If not, it has been answered.
func (p *requestState) judge(w http.ResponseWriter, r *http.Request) bool {
	if p.refused {
		return false
	}
	var readings gate.Readings
	if !gate.ReadPath(r.URL, &readings) {
		p.refused = true
		p.guard.live.ambiguous.Add(1)
		p.guard.live.events.Add(postern.Event{
			Kind: postern.EventAccessRefused, Outcome: postern.Refused, Address: written(addressOf(r)),
			Reason: ambiguousPath,
		})
		p.guard.answer(w, r, refusal{status: http.StatusBadRequest})
		return false
	}
	for i := range p.guard.guards {
		s := &p.guard.guards[i]
		if s.Paths.Cover(&readings) && !p.pass(w, r, s) {
			p.refused = true
			return false
		}
	}
	p.judged = reachesOf(r)
	return true
}

// judgeAs judges a request as what a handler will make of it.
func (p *requestState) judgeAs(w http.ResponseWriter, r, reached *http.Request) bool {
	passes := p.judge(w, reached)
	p.judged = reachesOf(r)
	return passes
}

// unchanged reports whether the request leads where it did when it was judged
// last.
func (p *requestState) unchanged(r *http.Request) bool {
	return p.judged == reachesOf(r) && !p.refused
}

// pass decides about one guard that covers the path.
func (p *requestState) pass(w http.ResponseWriter, r *http.Request, s *siteGuard) bool {
	q := newAuthorizationRequest(r, s)
	f := q.decide(r.Context(), p.guard.live, time.Now())
	if f.reason == gate.OK && s.audit && !p.guard.record(r.Context(), &q, f) {
		f.reason = gate.Unrecorded
	}
	p.guard.live.decisions[f.reason].Add(1)
	if f.reason != gate.OK {
		p.refuse(w, r, &q, f)
		return false
	}
	q.passed = f.by
	p.passed = append(p.passed, q)
	if f.by == withoutOne {
		return true
	}
	if !f.verdict.passed.Load() && f.verdict.passed.CompareAndSwap(false, true) {
		p.guard.note(&q, f.status.identity)
	}
	p.identity = f.status.identity
	p.addHeaders(&q, f)
	if p.guard.named {
		addFields(r, p.identity)
	}
	return true
}

// refuse answers a request that does not pass. Where a certificate would help,
// and none can be shown on this connection, it says where one can.
func (p *requestState) refuse(w http.ResponseWriter, r *http.Request, q *authorizationRequest, f decision) {
	switch {
	case !q.site.Anyone() && r.TLS == nil:
		p.guard.redirect(w, r)
	case !q.site.Anyone() && misdirected(r):
		p.guard.answer(w, r, refusal{status: http.StatusMisdirectedRequest})
	default:
		p.guard.noteRefusal(q, f)
		p.guard.answer(w, r, refusal{status: q.site.status(f.reason), reason: f.reason})
	}
}

// status is that of the answer to a refused request.
func (s *siteGuard) status(reason gate.Reason) int {
	switch reason {
	case gate.Unavailable, gate.Unrecorded:
		return http.StatusServiceUnavailable
	case gate.Closed:
		return s.closed
	}
	return http.StatusForbidden
}

// misdirected reports whether the request names another host than the TLS
// handshake did: a connection that a browser shares between sites, whose
// handshake asked for other certificates. The browser tries again on a
// connection of its own. A client that named no host in the handshake is
// judged by what it showed.
func misdirected(r *http.Request) bool {
	sni, host := r.TLS.ServerName, hostName(r.Host)
	return sni != "" && host != "" && !strings.EqualFold(strings.TrimSuffix(sni, "."), host)
}

// hostName returns the name in a Host header, without port and brackets.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") && strings.IndexByte(host,
		':') == i || strings.Contains(host, "]:") {
		host = host[:i]
	}
	return strings.Trim(host, "[]")
}

// addressOf returns the client's address: that of the connection, or what a
// trusted proxy says. A request that came by no connection, as one that a
// template makes, has none, and no rule about addresses holds for it.
func addressOf(r *http.Request) netip.Addr {
	if r.Context().Value(http.LocalAddrContextKey) == nil {
		return netip.Addr{}
	}
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if ip == "" {
		ip = r.RemoteAddr
		if h, _, err := net.SplitHostPort(ip); err == nil {
			ip = h
		}
	}
	a, _ := netip.ParseAddr(ip)
	return a.Unmap().WithZone("")
}

// written is an address as the timeline has it; "" for none.
func written(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// redirect sends a request for a guarded path over plain HTTP to HTTPS, for
// good. The address is the one that the client asked for, never a rewritten one.
func (g *Guard) redirect(w http.ResponseWriter, r *http.Request) {
	host := hostName(r.Host)
	if host == "" && len(g.Hosts) > 0 {
		host = g.Hosts[0]
	}
	target := originalURI(r)
	if host == "" || !strings.HasPrefix(target, "/") {
		g.answer(w, r, refusal{status: http.StatusForbidden, reason: gate.NoneShown})
		return
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if g.httpsPort != caddyhttp.DefaultHTTPSPort {
		host += ":" + strconv.Itoa(g.httpsPort)
	}
	status := http.StatusPermanentRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	w.Header().Set("Location", "https://"+host+target)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// originalURI returns the path and query of the request as the client sent it.
func originalURI(r *http.Request) string {
	u := r.URL
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		u = o.URL
	}
	uri := u.EscapedPath()
	if strings.HasPrefix(uri, "//") {
		uri = "/." + uri // no host can be smuggled in
	}
	if u.RawQuery != "" {
		uri += "?" + u.RawQuery
	}
	return uri
}

// noteRefusal records a refusal.
func (g *Guard) noteRefusal(q *authorizationRequest, f decision) {
	e := postern.Event{
		Kind: postern.EventAccessRefused, Outcome: postern.Refused, Address: written(q.address), Object: q.site.name,
		Reason: f.reason.String(),
	}
	if f.status != nil && f.status.holder != nil {
		e.Person = f.status.holder.Name
	}
	if f.verdict != nil && f.verdict.cert != nil {
		verified := f.verdict.cert.verified
		if verified.Own {
			e.Links = []postern.Link{{Kind: string(postern.X509Certificate), ID: verified.Leaf().Serial}}
		}
	}
	g.live.events.Add(e)
	if q.tls != nil && len(q.tls.PeerCertificates) > 0 && f.reason != gate.Unavailable && f.reason != gate.Unrecorded {
		g.live.tickets.refuse(q.tls.PeerCertificates)
	}
	if f.reason == gate.Unreadable {
		g.live.unreadable.forget(*q.conn.unreadable) // the answer closes the connection: the next one is asked
	}
}

// note records that a request passed, once a connection.
func (g *Guard) note(q *authorizationRequest, id *identity) {
	g.allowTickets(q)
	g.live.events.Add(signedIn(q, id))
}

// allowTickets lets the client resume its TLS session, which did not resume another.
func (g *Guard) allowTickets(q *authorizationRequest) {
	if !q.tls.DidResume {
		g.live.tickets.allow(q.tls.PeerCertificates)
	}
}

// addFields names person and serial in the access log, and gives Caddy's own
// placeholders the user.
func addFields(r *http.Request, id *identity) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		for _, f := range id.fields {
			extra.Set(f)
		}
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", id.name())
	}
}

// serves reports whether a request's host is one of the site's.
func (g *Guard) serves(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(hostName(host), "."))
	return len(g.Hosts) == 0 || slices.ContainsFunc(g.Hosts, func(h string) bool {
		return certmagic.MatchWildcard(host, strings.ToLower(h))
	})
}
