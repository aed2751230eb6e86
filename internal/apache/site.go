package apache

import (
	"net"
	"path"
	"slices"
	"strings"
)

// site is one virtual host with what it takes from the main server, in
// Apache's terms.
type site struct {
	at          *Directive // <VirtualHost>, or a stand-in for the main server
	ports       []string   // "443"; "" for any
	names       []string   // ServerName and ServerAlias
	tls         bool
	cert        string
	key         string
	chain       string
	trust       []string // files or folders of CAs for client certificates
	crl         []string
	ocsp        *Directive // SSLOCSPEnable on
	asks        bool       // SSLVerifyClient asks for a certificate somewhere
	oneline     bool       // SSLOptions +LegacyDNStringFormat
	depth       string
	docroot     string
	aliases     []alias
	index       []string
	errorLog    string
	accessLog   string
	engine      bool // RewriteEngine on
	sections    []*Directive
	policy      []*Directive // access directives of the whole host
	env         []*Directive // its SetEnvIf and the like
	steps       []step       // Redirect, RewriteRule, ProxyPass and so on, in order
	guards      []guard
	accessFiles []string // names of .htaccess files
	php         string   // address of a FastCGI server, as Caddy writes it
	fallback    bool     // what is no file goes to /index.php
}

type alias struct {
	url, dir string
	script   bool
}

// sites takes the configuration apart into its virtual hosts.
func (c *converter) sites(all []*Directive) []*site {
	var main, hosts []*Directive
	for _, d := range all {
		if d.Section && d.is("VirtualHost") {
			hosts = append(hosts, d)
		} else {
			main = append(main, d)
		}
	}
	if len(hosts) == 0 {
		s := &site{at: &Directive{Name: "main server", File: c.name, Line: 1}}
		c.fill(s, main, true)
		for _, d := range main {
			if d.is("Listen") {
				_, port := splitPort(d.arg(0))
				s.ports = append(s.ports, port)
			}
		}
		return []*site{s}
	}
	c.inherits = inherits(all)
	var out []*site
	for _, h := range hosts {
		s := &site{at: h}
		c.fill(s, main, false)
		c.fill(s, h.Children, true)
		for _, a := range h.Args {
			addr, port := splitPort(a)
			if addr != "*" && addr != "_default_" && addr != "" && net.ParseIP(addr) == nil {
				s.names = append(s.names, addr)
			}
			if !slices.Contains(s.ports, port) {
				s.ports = append(s.ports, port)
			}
		}
		out = append(out, s)
	}
	return c.shadowed(out)
}

// inherits reports whether a host may take the main server's RewriteRules too,
// which it else does not.
func inherits(list []*Directive) bool {
	return slices.ContainsFunc(list, func(d *Directive) bool {
		return d.is("RewriteOptions") && strings.Contains(strings.ToLower(d.Raw), "inherit") ||
			d.Section && inherits(d.Children)
	})
}

// shadowed leaves out a virtual host that an earlier one hides: Apache gives a
// name to the first that claims it.
func (c *converter) shadowed(sites []*site) []*site {
	first := map[string]*site{}
	return slices.DeleteFunc(sites, func(s *site) bool {
		named := len(s.names) > 0
		s.names = slices.DeleteFunc(s.names, func(n string) bool {
			for _, p := range s.ports {
				if o, ok := first[n+":"+p]; ok && o != s {
					c.notes.add(Lost, s.at, "%s is served by the virtual host at %s:%d already", n, o.at.File,
						o.at.Line)
					return true
				}
				first[n+":"+p] = s
			}
			return false
		})
		return named && len(s.names) == 0
	})
}

// splitPort takes "addr:port" apart; IPv6 addresses stand in brackets.
func splitPort(s string) (addr, port string) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		addr, port = s[:i], s[i+1:]
	} else if s != "" && strings.Trim(s, "0123456789") == "" {
		port = s
	} else {
		addr = s
	}
	if port == "*" {
		port = ""
	}
	return strings.Trim(addr, "[]"), port
}

// quiet are directives that have no bearing on what is answered to whom, or
// that Caddy does by itself.
var quiet = set(`
	AcceptPathInfo AddCharset AddDefaultCharset AddEncoding AddIcon AddIconByEncoding AddIconByType AddLanguage
	AddOutputFilterByType AddType DefaultIcon DefaultType DeflateCompressionLevel DirectorySlash
	EnableMMAP EnableSendfile ExpiresActive ExpiresByType ExpiresDefault FileETag ForceLanguagePriority Group
	HeaderName HostnameLookups IndexIgnore IndexOptions IndexStyleSheet KeepAlive KeepAliveTimeout LanguagePriority
	Listen LoadFile LoadModule LogFormat LogLevel MaxConnectionsPerChild MaxKeepAliveRequests MaxRequestWorkers
	MaxSpareServers MaxSpareThreads MIMEMagicFile MinSpareServers MinSpareThreads Mutex NameVirtualHost PidFile
	ReadmeName RequestReadTimeout RewriteEngine ScriptSock ServerAdmin ServerAlias ServerLimit ServerName
	ServerSignature ServerTokens SetOutputFilter SSLCipherSuite SSLCompression
	SSLCryptoDevice SSLHonorCipherOrder SSLOpenSSLConfCmd SSLPassPhraseDialog SSLProtocol SSLRandomSeed
	SSLSessionCache SSLSessionCacheTimeout SSLSessionTickets SSLStaplingCache SSLUseStapling StartServers
	ThreadLimit ThreadsPerChild TimeOut TraceEnable TypesConfig UseCanonicalName User DefaultRuntimeDir
	AllowOverrideList RewriteOptions RewriteBase RemoveType RemoveHandler ExtendedStatus ProxyStatus AddOutputFilter
	AddInputFilter ProxyPreserveHost ProxyRequests ProxyVia Protocols SSLStrictSNIVHostCheck ServerPath ContentDigest
	AliasMatchCase AllowOverride`)

// access are directives that say who may pass; they count in the whole host or
// in a section.
var access = set(`
	SSLRequire SSLRequireSSL SSLVerifyClient SSLVerifyDepth Require RequireAll RequireAny RequireNone Satisfy
	Order Allow Deny AuthType AuthName AuthUserFile AuthGroupFile AuthBasicProvider AuthDigestProvider AuthMerging
	Limit LimitExcept AllowMethods SSLUserName AuthzProviderAlias SSLOptions`)

// steps are directives that answer or pass on a request.
var steps = set(`
	Redirect RedirectMatch RedirectPermanent RedirectTemp RewriteRule RewriteCond ProxyPass ProxyPassMatch
	ProxyPassReverse Header RequestHeader ErrorDocument`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[strings.ToLower(w)] = true
	}
	return m
}

// fill puts what the directives say of a host into s. Names and ports are a
// host's own; all else a host takes from the main server too.
func (c *converter) fill(s *site, list []*Directive, own bool) {
	var conds []*Directive
	for _, d := range list {
		name := strings.ToLower(d.Name)
		switch {
		case access[name]:
			c.access(s, d)
		case steps[name]:
			if name == "rewritecond" {
				conds = append(conds, d)
				continue
			}
			if own || c.inherits || name != "rewriterule" {
				s.steps = append(s.steps, step{Directive: d, conds: conds})
			}
			conds = nil
		case d.Section:
			s.sections = append(s.sections, d)
			c.sectionSettings(s, d)
		default:
			c.setting(s, d, name, own)
		}
	}
}

// access remembers an access directive of a whole host.
func (c *converter) access(s *site, d *Directive) {
	if d.is("SSLVerifyDepth") {
		s.depth = d.arg(0)
	}
	s.policy = append(s.policy, d)
}

// setting puts one plain directive into the host.
func (c *converter) setting(s *site, d *Directive, name string, own bool) {
	switch name {
	case "servername":
		if own {
			host, _ := splitPort(strings.TrimPrefix(strings.TrimPrefix(d.arg(0), "https://"), "http://"))
			s.names = append([]string{strings.ToLower(host)}, s.names...)
		}
	case "serveralias":
		if own {
			for _, a := range d.Args {
				s.names = append(s.names, strings.ToLower(a))
			}
		}
	case "sslengine":
		s.tls = !strings.EqualFold(d.arg(0), "off")
	case "sslcertificatefile":
		s.cert = c.path(d.arg(0))
	case "sslcertificatekeyfile":
		s.key = c.path(d.arg(0))
	case "sslcertificatechainfile":
		s.chain = c.path(d.arg(0))
	case "sslcacertificatefile", "sslcacertificatepath":
		s.trust = append(s.trust, c.path(d.arg(0)))
	case "sslcarevocationfile", "sslcarevocationpath":
		s.crl = append(s.crl, c.path(d.arg(0)))
	case "sslcarevocationcheck":
		// Postern checks every list that it is given, along the whole chain.
	case "sslocspenable":
		if !strings.EqualFold(d.arg(0), "off") {
			s.ocsp = d
		}
	case "documentroot":
		s.docroot = c.path(d.arg(0))
	case "alias", "scriptalias":
		s.aliases = append(s.aliases, alias{d.arg(0), c.path(d.arg(1)), name == "scriptalias"})
	case "directoryindex":
		s.index = d.Args
	case "errorlog":
		s.errorLog = d.arg(0)
	case "customlog", "transferlog":
		s.accessLog = d.arg(0)
		if f := d.arg(1); f != "" && name == "customlog" {
			c.notes.add(Changed, d,
				"the log is written as JSON, with the person's name and the certificate's serial; the format %s is "+
					"not kept", f)
		}
	case "rewriteengine":
		s.engine = own && strings.EqualFold(d.arg(0), "on")
	case "sethandler", "addhandler":
		c.handler(s, d)
	case "options":
		// Options of the whole host: only in a directory do they matter.
	case "use":
		c.notes.add(Closed, d, "a macro may keep people out, and has no match in Postern")
		s.policy = append(s.policy, denied(d))
	case "accessfilename":
		s.accessFiles = d.Args
	default:
		switch {
		case setsEnv[name]:
			s.env = append(s.env, d)
		case firewall(d):
			c.notes.add(Lost, d,
				"it may keep requests out of the whole host, and has no match in Postern: nothing keeps them out here")
		case !quiet[name]:
			c.notes.add(Lost, d, "has no match in Postern and is left out")
		}
	}
}

// sectionSettings takes what a section says that is not about access: handlers
// and proxies.
func (c *converter) sectionSettings(s *site, d *Directive) {
	for _, k := range d.Children {
		switch name := strings.ToLower(k.Name); {
		case name == "sethandler", name == "addhandler":
			c.handler(s, k)
		case name == "proxypass" && plainLocation(d):
			s.steps = append(s.steps, step{Directive: k.with(append([]string{d.arg(0)}, k.Args...))})
		case k.Section:
			c.sectionSettings(s, k)
		}
	}
}

// handler finds out who runs the site's PHP.
func (c *converter) handler(s *site, d *Directive) {
	h := d.arg(0)
	if strings.EqualFold(h, "none") {
		return
	}
	addr, fcgi := strings.CutPrefix(h, "proxy:")
	switch {
	case fcgi && strings.HasPrefix(addr, "unix:"):
		sock, _, _ := strings.Cut(strings.TrimPrefix(addr, "unix:"), "|")
		s.php = "unix/" + sock
	case fcgi && strings.HasPrefix(addr, "fcgi://"):
		s.php = strings.TrimSuffix(strings.TrimPrefix(addr, "fcgi://"), "/")
	case strings.HasPrefix(h, "application/x-httpd-php"), strings.HasPrefix(h, "php"):
		s.php = c.cfg.php()
		c.notes.add(Changed, d, "PHP inside Apache becomes PHP over FastCGI at %s", s.php)
	case h == "type-map", h == "cgi-script", h == "server-status", h == "server-info", h == "default-handler":
	default:
		c.notes.add(Lost, d, "this handler has no match in Postern")
	}
}

// path makes a file name absolute as Apache does, below ServerRoot.
func (c *converter) path(name string) string {
	if name == "" || path.IsAbs(name) {
		return name
	}
	return path.Join(c.root, name)
}
