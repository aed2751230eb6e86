package apache

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
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
			c.notes.add(Info, s.at, "certificate and chain are one file for Caddy: %s holds %s and then %s", cert, s.cert, s.chain)
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

// content writes who answers: proxies, aliases, PHP and files.
func (c *converter) content(s *site) {
	for _, st := range s.steps {
		if st.is("ProxyPass") {
			c.proxy(st.Directive)
		}
	}
	for _, a := range s.aliases {
		if a.script {
			fmt.Fprintf(&c.out, "\thandle %s {\n\t\terror 403\n\t}\n", under(a.url))
			c.notes.add(Lost, s.at, "Caddy runs no CGI: what stands under %s is answered with 403, not shown", a.url)
			continue
		}
		fmt.Fprintf(&c.out, "\thandle_path %s {\n", under(a.url))
		c.documents(s, a.dir, "\t\t")
		fmt.Fprint(&c.out, "\t}\n")
	}
	if s.docroot != "" {
		c.documents(s, s.docroot, "\t")
	}
}

// documents writes who serves the files of a directory: PHP its scripts, and
// the file server all else.
func (c *converter) documents(s *site, dir, indent string) {
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
	m := ""
	if indent != "\t" {
		m = c.matcher()
	}
	fmt.Fprintf(w, "@php%s path_regexp `(?i)\\.(?:php[0-9]?|phtml|phar)(?:/|$)`\n", m)
	if php == "" {
		// Apache may run PHP by a module that this configuration does not
		// show: its sources must not be shown instead.
		fmt.Fprintf(w, "error @php%s 403\n", m)
		c.notes.add(Info, s.at, "nothing says who runs PHP: scripts are answered with 403; name a FastCGI server with --php")
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
	for line := range strings.Lines(b.String()) {
		c.out.WriteString(indent + line)
	}
}

// proxy writes one ProxyPass.
func (c *converter) proxy(d *Directive) {
	from, to := d.arg(0), d.arg(1)
	if to == "!" && c.site.docroot == "" {
		fmt.Fprintf(&c.out, "\thandle %s {\n\t\terror 404\n\t}\n", under(from))
		return
	}
	if to == "!" {
		fmt.Fprintf(&c.out, "\thandle %s {\n", under(from))
		c.documents(c.site, c.site.docroot, "\t\t")
		fmt.Fprint(&c.out, "\t}\n")
		return
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		fmt.Fprintf(&c.out, "\thandle %s {\n\t\terror 503\n\t}\n", under(from))
		c.notes.add(Lost, d, "only http and https are proxied; the place answers 503")
		return
	}
	upstream := token(u.Scheme + "://" + u.Host)
	base, target := strings.TrimSuffix(from, "/"), strings.TrimSuffix(u.Path, "/")
	switch {
	case base == target:
		fmt.Fprintf(&c.out, "\thandle %s {\n\t\treverse_proxy %s\n\t}\n", under(base), upstream)
	case target == "":
		fmt.Fprintf(&c.out, "\thandle_path %s {\n\t\treverse_proxy %s\n\t}\n", under(base), upstream)
	default:
		fmt.Fprintf(&c.out, "\thandle_path %s {\n\t\trewrite * %s\n\t\treverse_proxy %s\n\t}\n", under(base), token(target+"{uri}"), upstream)
	}
}

// under is a path matcher for all that begins with a prefix.
func under(prefix string) string {
	if prefix = strings.TrimSuffix(prefix, "/"); prefix == "" {
		return "/*"
	}
	return token(prefix + "*")
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
	p := g.policy
	switch {
	case p.closed:
		fmt.Fprint(w, "\t\tanyone\n\t\trule `false`\n") // nobody, with or without a certificate
	default:
		if !p.asks() {
			fmt.Fprint(w, "\t\tanyone\n")
		} else {
			c.trust(s, p)
		}
		for _, r := range append(p.rules, p.hosts...) {
			fmt.Fprintf(w, "\t\trule `%s`\n", r)
		}
	}
	if p.status != 0 {
		fmt.Fprintf(w, "\t\tstatus %d\n", p.status)
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
func (c *converter) trust(s *site, p policy) {
	if len(s.trust) > 0 {
		fmt.Fprintf(&c.out, "\t\ttrust %s\n", tokens(s.trust))
	}
	if len(s.crl) > 0 {
		fmt.Fprintf(&c.out, "\t\tcrl %s\n", tokens(s.crl))
	}
	depth := p.depth
	if depth == "" {
		depth = "1" // Apache's default
	}
	fmt.Fprintf(&c.out, "\t\tdepth %s\n", token(depth))
}
