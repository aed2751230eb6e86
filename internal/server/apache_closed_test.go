package server_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// closings are ways in which Apache keeps people out of a place: {u} is its
// path and {d} its directory. Who gets in there is asked of Apache itself.
var closings = []struct {
	name, conf string
	access     string // .htaccess in the place
	stricter   bool   // Postern may refuse where Apache shows
}{
	{name: "nothing", conf: ``},
	{name: "forbidden", conf: `RewriteRule ^{u}/ - [F]`},
	{name: "gone", conf: `RewriteRule ^{u}/ - [G]`},
	{
		name: "forbidden without certificate",
		conf: "RewriteCond %{SSL:SSL_CLIENT_VERIFY} !=SUCCESS\nRewriteRule ^{u}/ - [F]",
	},
	{
		name: "forbidden by name",
		conf: "RewriteCond %{SSL:SSL_CLIENT_S_DN_CN} !^dan@example\\.com$ [NC]\nRewriteRule ^{u}/ - [F]",
	},
	{
		name: "forbidden by an expression",
		conf: "RewriteCond expr \"%{SSL_CLIENT_S_DN_CN} != 'dan@example.com'\"\nRewriteRule ^{u}/ - [F]",
	},
	{name: "an address that is ours", conf: "RewriteCond %{REMOTE_ADDR} !^127\\.0\\.0\\.1$\nRewriteRule ^{u}/ - [F]"},
	{name: "an address that is not", conf: "RewriteCond %{REMOTE_ADDR} ^127\\.\nRewriteRule ^{u}/ - [F]"},
	{
		name: "one of two addresses",
		conf: "RewriteCond %{REMOTE_ADDR} ^10\\. [OR]\nRewriteCond %{REMOTE_ADDR} ^127\\.\nRewriteRule ^{u}/ - [F]",
	},
	{name: "a header", conf: "RewriteCond %{HTTP:X-Key} !=sesame\nRewriteRule ^{u}/ - [F]"},
	{name: "a header that is missing", conf: "RewriteCond %{HTTP_USER_AGENT} ^$\nRewriteRule ^{u}/ - [F]"},
	{name: "the request's line", conf: "RewriteCond %{THE_REQUEST} \"^GET .* HTTP\"\nRewriteRule ^{u}/ - [F]"},
	{name: "an unknown variable", conf: "RewriteCond %{ENV:secret} !=yes\nRewriteRule ^{u}/ - [F]"},
	{name: "a file of the server", conf: "RewriteCond {d}/key !-f\nRewriteRule ^{u}/ - [F]"},
	{
		name: "sent away without certificate",
		conf: "RewriteCond %{SSL:SSL_CLIENT_VERIFY} !^SUCCESS$\nRewriteRule ^{u}/ /login [R,L]",
	},
	{
		name: "rewritten without certificate",
		conf: "RewriteCond %{SSL:SSL_CLIENT_VERIFY} !^SUCCESS$\nRewriteRule ^{u}/ /index.html [L]",
	},
	{
		name: "sent away without a referer",
		conf: "RewriteCond %{HTTP_REFERER} !trusted\nRewriteCond %{REQUEST_URI} ^{u}\n" +
			"RewriteRule ^{u}/ https://www.example.com/ [R]",
	},
	{
		name: "one thing or another",
		conf: "RewriteCond %{HTTP_REFERER} trusted [OR]\nRewriteCond %{HTTP_USER_AGENT} !bot\n" +
			"RewriteRule ^{u}/ https://www.example.com/ [R]",
	},
	{name: "open by a rule before", conf: "RewriteRule ^{u}/index - [L]\nRewriteRule ^{u}/ - [F]"},
	{
		name: "not open by a rule before",
		conf: "RewriteCond %{REMOTE_ADDR} !^127\nRewriteRule ^{u}/index - [L]\nRewriteRule ^{u}/ - [F]",
	},
	{
		name: "rewritten, then gone",
		conf: "RewriteRule ^{u}/other\\.html$ {u}/third.html\nRewriteRule ^{u}/third - [G]",
	},
	{name: "Redirect 403", conf: `Redirect 403 {u}`},
	{name: "Redirect gone", conf: `Redirect gone {u}`},
	{name: "Redirect elsewhere", conf: `Redirect {u} https://www.example.com/login`},
	{name: "RedirectMatch 404", conf: `RedirectMatch 404 ^{u}/`},
	{name: "RedirectMatch 403 in a place", conf: "<Location {u}>\nRedirectMatch 403 .*\n</Location>"},
	{name: "Redirect in a place", conf: "<Location {u}>\nRedirect https://www.example.com/\n</Location>"},
	{name: "Redirect gone in a place", conf: "<LocationMatch ^{u}/>\nRedirect gone\n</LocationMatch>"},
	{name: "forbidden in a place", conf: "<Location {u}>\nRewriteEngine on\nRewriteRule ^ - [F]\n</Location>"},
	{
		name: "forbidden in a place without certificate",
		conf: "<Location {u}>\nRewriteEngine on\nRewriteCond %{SSL:SSL_CLIENT_VERIFY} !=SUCCESS\n" +
			"RewriteRule .* - [F]\n</Location>",
	},
	{
		name: "a name in a directory",
		conf: "<Directory {d}>\nRewriteEngine on\nRewriteRule ^index\\.html$ - [F]\nRewriteRule (^|/)other - [F]\n" +
			"</Directory>",
	},
	{
		name: "an end in a directory",
		conf: "<Directory {d}>\nRewriteEngine on\nRewriteRule \\.html$ - [F]\n</Directory>",
	},
	{
		name: "all but a name in a directory",
		conf: "<Directory {d}>\nRewriteEngine on\nRewriteRule !^other - [F]\n</Directory>",
	},
	{
		name: "sent away from a directory",
		conf: "<Directory {d}>\nRewriteEngine on\nRewriteCond %{SSL:SSL_CLIENT_S_DN_CN} !^dan@\n" +
			"RewriteRule ^(.*)$ https://www.example.com/$1 [R]\n</Directory>",
	},
	{name: "an engine that is off", conf: "<Directory {d}>\nRewriteEngine off\nRewriteRule ^ - [F]\n</Directory>"},
	{name: "Deny", conf: "<Location {u}>\nOrder allow,deny\nAllow from all\nDeny from 127.0.0.1\n</Location>"},
	{name: "mutual failure", conf: "<Location {u}>\nOrder mutual-failure\nDeny from 192.0.2.1\n</Location>"},
	{
		name: "Deny from env",
		conf: "<Location {u}>\nSetEnvIf User-Agent ^$ nobody\nOrder allow,deny\nAllow from all\n" +
			"Deny from env=nobody\n</Location>",
	},
	{
		name: "Allow from env",
		conf: "<Location {u}>\nSetEnvIf Remote_Addr ^127 home\nOrder deny,allow\nDeny from all\n" +
			"Allow from env=home\n</Location>",
	},
	{
		name: "Allow from env taken back",
		conf: "<Location {u}>\nSetEnvIf Remote_Addr ^127 near\nBrowserMatch Go !near\nOrder deny,allow\n" +
			"Deny from all\nAllow from env=near\n</Location>",
	},
	{
		name: "Allow from env of the host",
		conf: "SetEnvIf Request_Method ^GET$ reads\nSetEnvIfNoCase user-agent ^GO- !reads reads=1\n<Location {u}>\n" +
			"Order deny,allow\nDeny from all\nAllow from env=reads\n</Location>",
	},
	{
		name: "Deny from env of another place",
		conf: "<Location /place>\nSetEnvIf Remote_Addr ^127 placed\n</Location>\n<Location {u}>\n" +
			"SetEnvIf Remote_Addr ^10 placed\nOrder allow,deny\nAllow from all\nDeny from env=placed\n</Location>",
		stricter: true,
	},
	{
		name: "Require env",
		conf: "<Location {u}>\nSetEnvIfExpr \"%{REMOTE_ADDR} == '127.0.0.1'\" here\nRequire env here\n</Location>",
	},
	{
		name: "Require not env",
		conf: "<Location {u}>\nSetEnvIf X-None ^$ bare\n<RequireAll>\nRequire all granted\nRequire not env bare\n" +
			"</RequireAll>\n</Location>",
	},
	{name: "Require ip", conf: "<Location {u}>\nRequire ip 192.0.2.0/24\n</Location>"},
	{name: "Require our ip", conf: "<Location {u}>\nRequire ip 127.0.0.1\n</Location>"},
	{
		name: "Require valid-user",
		conf: "<Location {u}>\nAuthType Basic\nAuthName x\nAuthUserFile {d}/users\nRequire valid-user\n</Location>",
	},
	{
		name: "Require expr",
		conf: "<Location {u}>\nRequire expr %{SSL_CLIENT_S_DN_CN} == 'dan@example.com'\n</Location>",
	},
	{
		name: "SSLRequire",
		conf: "<Directory {d}>\nSSLRequire %{SSL_CLIENT_S_DN_CN} eq \"dan@example.com\"\n</Directory>",
	},
	{name: "SSLVerifyClient", conf: "<Location {u}>\nSSLVerifyClient require\nSSLVerifyDepth 3\n</Location>"},
	{name: "Limit", conf: "<Location {u}>\n<Limit GET>\nRequire all denied\n</Limit>\n</Location>"},
	{name: "Limit of other methods", conf: "<Location {u}>\n<Limit POST>\nRequire all denied\n</Limit>\n</Location>"},
	{name: "LimitExcept", conf: "<Location {u}>\n<LimitExcept POST>\nRequire all denied\n</LimitExcept>\n</Location>"},
	{name: "AllowMethods", conf: "<Location {u}>\nAllowMethods POST\n</Location>"},
	{
		name: "If",
		conf: "<Location {u}>\n<If \"%{REMOTE_ADDR} == '127.0.0.1'\">\nRequire all denied\n</If>\n</Location>",
	},
	{
		name: "If the certificate is wrong",
		conf: "<Location {u}>\n<If \"%{SSL_CLIENT_S_DN_CN} != 'dan@example.com'\">\nRequire all denied\n</If>\n" +
			"</Location>",
	},
	{
		name: "If and Else",
		conf: "<Directory {d}>\n<If \"%{REMOTE_ADDR} == '192.0.2.1'\">\nRequire all granted\n</If>\n<Else>\n" +
			"Require all denied\n</Else>\n</Directory>",
	},
	{name: "If with a redirect", conf: "<If \"%{REQUEST_URI} =~ m#^{u}/#\">\nRedirect 403 /\n</If>"},
	{
		name: "FilesMatch",
		conf: "<Directory {d}>\n<FilesMatch \"^(index|other)\">\nRequire all denied\n</FilesMatch>\n</Directory>",
	},
	{name: "a directory by its pattern", conf: "<Directory {d}*>\nRequire all denied\n</Directory>"},
	{name: "directories by an expression", conf: "<DirectoryMatch {u}>\nRequire all denied\n</DirectoryMatch>"},
	{name: ".htaccess", access: "Require all denied\n"},
	{
		name:   ".htaccess that rewrites",
		access: "RewriteEngine on\nRewriteCond %{SSL:SSL_CLIENT_VERIFY} !=SUCCESS\nRewriteRule . - [F]\n",
	},
	{
		name:   ".htaccess that forbids a name",
		access: "<Files \"index.html\">\nOrder deny,allow\nDeny from all\n</Files>\n",
	},
	{
		name: ".htaccess of an application",
		access: "RewriteEngine on\nRewriteBase {u}/\nRewriteRule ^index\\.php$ - [L]\n" +
			"RewriteCond %{REQUEST_FILENAME} !-f\nRewriteCond %{REQUEST_FILENAME} !-d\nRewriteRule . /index.php [L]\n",
	},
	{
		name:   ".htaccess that wants HTTPS",
		access: "RewriteEngine on\nRewriteCond %{HTTPS} !=on\nRewriteRule ^(.*)$ https://%{HTTP_HOST}/$1 [R=301,L]\n",
	},
}

// TestWhatApacheClosesStaysClosed asks a real Apache and Postern, by the
// imported configuration, for places that are closed in all the ways that
// Apache knows.
func TestWhatApacheClosesStaysClosed(t *testing.T) {
	s := newStartcom(t)
	dir := posterntest.OpenDir(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("www/index.html", publicText)
	conf := "<VirtualHost *:443>\nServerName www.example.com\nDocumentRoot " + dir +
		"/www\nSSLEngine on\nSSLCertificateFile " + dir + "/server.pem\nSSLCertificateKeyFile " + dir +
		"/server.key\nSSLCACertificateFile " + dir +
		"/start.pem\nSSLVerifyClient optional\nSSLVerifyDepth 3\nRewriteEngine on\n<Directory " + dir +
		"/www>\nAllowOverride All\nRequire all granted\n</Directory>\n"
	for i, c := range closings {
		u := fmt.Sprintf("/place%02d", i)
		text := strings.NewReplacer("{u}", u, "{d}", dir+"/www"+u)
		write("www"+u+"/index.html", secretText)
		write("www"+u+"/other.html", secretText)
		if c.access != "" {
			write("www"+u+"/.htaccess", text.Replace(c.access))
		}
		conf += text.Replace(c.conf) + "\n"
	}
	conf += "</VirtualHost>\n<VirtualHost *:80>\nServerName www.example.com\nDocumentRoot " + dir +
		"/www\n</VirtualHost>\n"
	s.serverCert.write(t, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	s.root.write(t, filepath.Join(dir, "start.pem"), "")
	old := runApache(t, dir, conf)
	fresh := runImported(t, dir, conf, "")

	who := map[string]*visit{}
	for name, id := range s.identities() {
		if name == "none" || name == "dan" || name == "mallory" {
			who[name] = &visit{port: fresh.https, cert: id.cert}
			defer who[name].close()
		}
	}
	for i, c := range closings {
		u := fmt.Sprintf("/place%02d", i)
		for name, v := range who {
			for _, file := range []string{"/", "/index.html", "/other.html"} {
				was := ask(t, old.https, v.cert, u+file, tls.VersionTLS12)
				for _, path := range []string{
					u + file, "/" + u + file, "/x/.." + u + file, strings.ToUpper(u) + file,
					"/%70lace" + u[6:] + file, u + "/./" + file[1:], u + "//" + file[1:],
				} {
					is := v.ask(t, path)
					if is.body == secretText && was.body != secretText {
						t.Errorf("%s: %s for %s: Postern shows what Apache answers with %d", c.name, path, name,
							was.status)
					}
				}
				is := v.ask(t, u+file)
				if was.body == secretText && is.body != secretText && !c.stricter {
					t.Errorf("%s: %s for %s: Postern answers %d, Apache shows it", c.name, u+file, name, is.status)
				}
				if (was.status == http.StatusGone || was.status == http.StatusNotFound) && is.status != was.status {
					t.Errorf("%s: %s for %s: Postern answers %d, Apache %d", c.name, u+file, name, is.status,
						was.status)
				}
				if was.status == http.StatusFound && is.status != was.status && is.status != http.StatusForbidden {
					t.Errorf("%s: %s for %s: Postern answers %d, Apache %d", c.name, u+file, name, is.status,
						was.status)
				}
			}
		}
	}
}
