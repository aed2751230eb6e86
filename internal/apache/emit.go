package apache

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// emit writes one host as a site of a Caddyfile.
func (c *converter) emit(s *site) {
	c.site = s
	w := &c.out
	fmt.Fprintf(w, "%s {\n", strings.Join(c.addresses(s), ", "))
	if s.tls && s.cert != "" {
		c.certificate(s)
	}
	if s.accessLog != "" && s.accessLog[0] != '|' {
		fmt.Fprintf(w, "\tlog {\n\t\toutput file %s\n\t}\n", token(c.logPath(s.accessLog)))
	}
	for _, g := range s.guards {
		c.guard(s, g)
	}
	c.steps(s)
	c.content(s)
	fmt.Fprint(w, "}\n")
}

// addresses returns the site's addresses as Caddy wants them.
func (c *converter) addresses(s *site) []string {
	scheme, std := "http", "80"
	if s.tls {
		scheme, std = "https", "443"
	}
	names := s.names
	if len(names) == 0 {
		names = []string{""}
	}
	ports := s.ports
	if len(ports) == 0 {
		ports = []string{std}
	}
	var out []string
	for _, n := range names {
		if strings.ContainsAny(n, "*?") && !(strings.HasPrefix(n, "*.") && !strings.ContainsAny(n[2:], "*?")) {
			c.notes.add(Lost, s.at, "Caddy knows a wild card only as a whole first label; %s is left out", n)
			continue
		}
		for _, p := range ports {
			a := scheme + "://" + n
			if p != "" && (p != std || n == "") {
				a += ":" + p
			}
			out = append(out, a)
		}
	}
	return out
}

// certificate writes the site's own certificate. Caddy wants the chain behind
// the certificate in one file.
func (c *converter) certificate(s *site) {
	cert := s.cert
	if s.chain != "" {
		cert = c.joined(s.cert, s.chain)
		if s.at != nil {
			c.notes.add(Info, s.at, "certificate and chain are one file for Caddy: %s holds %s and then %s", cert,
				s.cert, s.chain)
		}
	}
	key := s.key
	if key == "" {
		key = s.cert
	}
	fmt.Fprintf(&c.out, "\ttls %s %s\n", token(cert), token(key))
}

// joined names the file that holds certificate and chain.
func (c *converter) joined(cert, chain string) string {
	name := strings.TrimSuffix(cert, path.Ext(cert)) + "-fullchain.pem"
	c.bundles = append(c.bundles, Bundle{Name: name, Parts: []string{cert, chain}})
	return name
}

// logPath resolves a log's file name; ${APACHE_LOG_DIR} is where Debian keeps
// them.
func (c *converter) logPath(name string) string {
	return c.path(strings.ReplaceAll(name, "${APACHE_LOG_DIR}", "/var/log/apache2"))
}

// content writes who answers: proxies, aliases, PHP and files. The first prefix
// that a path is below decides, in the order of the configuration.
func (c *converter) content(s *site) {
	proxies := slices.ContainsFunc(s.steps, func(st step) bool { return st.is("ProxyPass") })
	if proxies || len(s.aliases) > 0 {
		fmt.Fprint(&c.out, "\troute {\n")
	}
	for _, st := range s.steps {
		if st.is("ProxyPass") {
			c.proxy(st.Directive)
		}
	}
	for _, a := range s.aliases {
		if a.script {
			c.under(a.url, "error 403")
			c.notes.add(Lost, s.at, "Caddy runs no CGI: what stands under %s is answered with 403, not shown", a.url)
			continue
		}
		lines := c.documents(s, a.dir, c.matcher())
		if base := strings.TrimSuffix(a.url, "/"); base != "" {
			lines = "uri strip_prefix " + token(base) + "\n" + lines
		}
		c.under(a.url, lines)
	}
	if proxies || len(s.aliases) > 0 {
		fmt.Fprint(&c.out, "\t}\n")
	}
	if s.docroot == "" {
		return
	}
	for line := range strings.Lines(c.documents(s, s.docroot, "")) {
		c.out.WriteString("\t" + line)
	}
}

// documents returns the lines by which the files of a directory are served: PHP
// runs its scripts, and the file server serves all else. Its matchers end in m.
func (c *converter) documents(s *site, dir, m string) string {
	var b strings.Builder
	w := &b
	fmt.Fprintf(w, "root %s\n", token(dir))
	index := s.index
	if len(index) == 0 {
		index = []string{"index.html"}
	}
	php := s.php
	if php == "" {
		php = c.cfg.PHP
	}
	fmt.Fprintf(w, "@php%s path_regexp `(?i)\\.(?:php[0-9]?|phtml|phar)(?:/|$)`\n", m)
	if php == "" {
		// Apache may run PHP by a module that this configuration does not
		// show: its sources must not be shown instead.
		fmt.Fprintf(w, "error @php%s 403\n", m)
		c.notes.add(Info, s.at,
			"nothing says who runs PHP: scripts are answered with 403; name a FastCGI server with --php")
	} else {
		var try []string
		for _, i := range index {
			if !strings.HasPrefix(i, "/") {
				try = append(try, token("{path}"+i))
			}
		}
		fmt.Fprintf(w, "@index%s {\n\tpath */\n\tfile {\n\t\ttry_files %s\n\t}\n}\n", m, strings.Join(try, " "))
		fmt.Fprintf(w, "rewrite @index%s {file_match.relative}{?query}\n", m)
		if s.fallback && m == "" {
			fmt.Fprint(w, "@missing not file {path} {path}/\nrewrite @missing /index.php{?query}\n")
		}
		fmt.Fprintf(w, "reverse_proxy @php%s %s {\n\ttransport fastcgi {\n\t\tsplit .php\n\t}\n}\n", m, token(php))
	}
	fmt.Fprintf(w, "file_server {\n\tindex %s\n\thide .ht*\n}\n", tokens(index))
	return b.String()
}

// proxy writes one ProxyPass.
func (c *converter) proxy(d *Directive) {
	from, to := d.arg(0), d.arg(1)
	if to == "!" && c.site.docroot == "" {
		c.under(from, "error 404")
		return
	}
	if to == "!" {
		c.under(from, c.documents(c.site, c.site.docroot, c.matcher()))
		return
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		c.under(from, "error 503")
		c.notes.add(Lost, d, "only http and https are proxied; the place answers 503")
		return
	}
	proxy := "reverse_proxy " + token(u.Scheme+"://"+u.Host)
	base, target := strings.TrimSuffix(from, "/"), strings.TrimSuffix(u.Path, "/")
	switch {
	case target == base:
	case base == "":
		proxy = "rewrite * " + token(target+"{uri}") + "\n" + proxy
	case target == "":
		proxy = "uri strip_prefix " + token(base) + "\n" + proxy
	default:
		proxy = "uri path_regexp " + token("^"+regexpLiteral(base)) + " " + token(target) + "\n" + proxy
	}
	c.under(from, proxy)
}

// under writes what happens below a prefix, which ends at a segment, as Apache's
// do.
func (c *converter) under(prefix, lines string) {
	prefix, slash := strings.CutSuffix(prefix, "/")
	matcher := token(prefix + "/*")
	if !slash {
		m := c.matcher()
		fmt.Fprintf(&c.out, "\t\t@%s path %s %s\n", m, token(prefix), matcher)
		matcher = "@" + m
	}
	fmt.Fprintf(&c.out, "\t\thandle %s {\n", matcher)
	for line := range strings.Lines(lines) {
		c.out.WriteString("\t\t\t" + strings.TrimSuffix(line, "\n") + "\n")
	}
	c.out.WriteString("\t\t}\n")
}

// matcher returns a name for a matcher that this site has not used yet.
func (c *converter) matcher() string {
	c.matchers++
	return fmt.Sprintf("m%d", c.matchers)
}

func regexpLiteral(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(regexpQuote(s[i]))
	}
	return b.String()
}

// token writes a word so that a Caddyfile reads it back as it is.
func token(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\r\n\"`#{}\\'") {
		return s
	}
	if !strings.ContainsAny(s, "`\r\n") {
		return "`" + s + "`"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", "", "\n", " ").Replace(s) + `"`
}

func tokens(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, token(s))
	}
	return strings.Join(out, " ")
}

// guard writes one guard.
func (c *converter) guard(s *site, g guard) {
	w := &c.out
	fmt.Fprintf(w, "\trequire %s {\n", c.places(g))
	open := g.ways.open
	switch {
	case g.ways.closed:
		fmt.Fprint(w, "\t\tanyone\n\t\trule `false`\n") // no request, with or without a certificate
	case g.ways.certify:
		c.trust(s, g)
		for _, r := range g.ways.rules {
			fmt.Fprintf(w, "\t\trule `%s`\n", r)
		}
		for _, h := range g.headers {
			fmt.Fprintf(w, "\t\theader_up %s `%s`\n", token(h.name), h.value)
		}
	default:
		fmt.Fprint(w, "\t\tanyone\n")
		open[0].write(w, "\t\t")
		open = open[1:]
	}
	for _, o := range open {
		fmt.Fprint(w, "\t\tor anyone {\n")
		o.write(w, "\t\t\t")
		fmt.Fprint(w, "\t\t}\n")
	}
	if g.status != 0 {
		fmt.Fprintf(w, "\t\tstatus %d\n", g.status)
	}
	fmt.Fprint(w, "\t}\n")
}

// places writes where a guard stands.
func (c *converter) places(g guard) string {
	if g.regexp != "" {
		return token("~" + g.regexp)
	}
	var out []string
	for _, p := range g.prefix {
		out = append(out, token(place(p)))
	}
	return strings.Join(out, " ")
}

// place writes a prefix as a guard's path: as an expression where there are
// characters in it that such a path may not have.
func place(prefix string) string {
	if !strings.ContainsAny(prefix, `*?#%\;`) {
		return prefix + "*"
	}
	if dir, ok := strings.CutSuffix(prefix, "/"); ok {
		return "~^" + regexp.QuoteMeta(dir) + "(?:/|$)"
	}
	return "~^" + regexp.QuoteMeta(prefix)
}

// trust writes whose certificates count, and how far from the leaf.
func (c *converter) trust(s *site, g guard) {
	if len(s.trust) > 0 {
		fmt.Fprintf(&c.out, "\t\ttrust %s\n", tokens(s.trust))
	}
	if len(s.crl) > 0 {
		fmt.Fprintf(&c.out, "\t\tcrl %s\n", tokens(s.crl))
	}
	fmt.Fprintf(&c.out, "\t\tdepth %s\n", token(cmp.Or(g.depth, "1"))) // Apache's default
}
