package front

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

const phpPage = `<?php
header("Content-Type: text/plain");
echo "` + secret + `\n";
foreach ($_SERVER as $k => $v) {
	if (preg_match('/^(HTTP_|SSL_|REMOTE_USER|POSTERN|SCRIPT_NAME|PATH_INFO)/', $k)) echo "$k=$v\n";
}
`

// TestPHPIsToldWhoComes serves PHP through php-fpm: what is guarded is guarded
// with path info too, and the page sees Apache's variables.
func TestPHPIsToldWhoComes(t *testing.T) {
	socket := posterntest.PHP(t)
	h := newRig(t)
	h.file(t, "www/index.php",
		"<?php echo '"+public+"', '|', $_SERVER['SSL_CLIENT_VERIFY'], '|', $_SERVER['SSL_CLIENT_S_DN_CN'] ?? "+
			"'none', '|', $_SERVER['HTTP_SSL_CLIENT_S_DN_CN'] ?? 'none';")
	h.file(t, "www/wp-login.php", phpPage)
	h.file(t, "www/wp-admin/index.php", phpPage)
	h.file(t, "www/style.css", public)
	https, _ := h.serve(t, strings.ReplaceAll(`
localhost:HTTPS {
	root * DIR/www
	php_fastcgi unix/SOCKET
	file_server
	require /wp-admin* /wp-login.php* {
		person alice
	}
}
`, "SOCKET", socket))
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	ask := func(target string, who *holder, headers ...string) answer {
		t.Helper()
		got, err := h.try(https, attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
			target: target, who: who, headers: headers,
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, target := range []string{
		"/wp-login.php", "/wp-login.php/", "/wp-login.php/x/y.css", "/wp-login.php/../wp-login.php/x", "/wp-admin/",
		"/wp-admin", "/wp-admin/index.php/x",
		"/wp-admin/x.php/y", "/WP-LOGIN.PHP", "/wp-login.php%20", "/wp-login.php%00x", "/wp-login.php;x",
		"/x/../wp-login.php", "/wp-admin//index.php",
		"/style.css/../wp-login.php", "/index.php/../wp-login.php", "/wp-login%2ephp", "/wp-login.php%3fx",
		"//wp-login.php", "/style.css/wp-login.php",
	} {
		for _, who := range []*holder{nil, bob} {
			if got := ask(target, who); strings.Contains(got.body, secret) {
				t.Errorf("%s: %d %s", target, got.status, got.body)
			}
		}
	}
	got := ask("/wp-login.php/info?x=1", alice, "SSL-Client-S-DN-Email: forged", "Postern-Person: forged")
	for _, want := range []string{
		"SSL_CLIENT_S_DN_CN=alice", "SSL_CLIENT_SAN_Email_0=alice@example.com", "SSL_CLIENT_S_DN_O=Example",
		"SSL_CLIENT_VERIFY=SUCCESS",
		"SSL_CLIENT_I_DN_CN=Test Client CA", "REMOTE_USER=alice", "POSTERN_PERSON=alice", "SCRIPT_NAME=/wp-login.php",
		"PATH_INFO=/info",
	} {
		if !strings.Contains(got.body, want+"\n") {
			t.Errorf("the page does not see %s:\n%s", want, got.body)
		}
	}
	if strings.Contains(got.body, "forged") {
		t.Errorf("a forged identity arrives: %s", got.body)
	}
	if got := ask("/", alice, "SSL-Client-S-DN-CN: forged"); got.body != public+"|NONE|none|none" {
		t.Errorf("public page: %s", got.body)
	}
	if got := ask("/style.css", nil); got.body != public {
		t.Errorf("style sheet: %d %s", got.status, got.body)
	}
}
