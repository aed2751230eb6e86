package apache_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-project/postern/internal/apache"
)

const narrowedSite = `
<VirtualHost *:443>
	ServerName www.example.org
	SSLEngine on
	SSLCertificateFile /server.pem
	SSLCertificateKeyFile /server.key
	SSLCACertificateFile /ca.pem
	SSLVerifyClient %s
	DocumentRoot /srv
	<Location /x>
		%s
	</Location>
</VirtualHost>
`

// TestWhatIsNarrowedIsNoted holds that a place which asks for more than Apache's
// has a note, and that one which asks for the same has none.
func TestWhatIsNarrowedIsNoted(t *testing.T) {
	const certificate = "Require ssl-verify-client"
	for _, c := range []struct {
		verify, lines string
		narrowed      bool
	}{
		{"optional", certificate, false},
		{"optional", "<RequireAll>\nRequire ip 10.0.0.0/8\n" + certificate + "\n</RequireAll>", false},
		{"optional", "<RequireAny>\nRequire ip 10.0.0.0/8\n" + certificate + "\n</RequireAny>", false},
		{"optional", "Require ip 10.0.0.0/8\n" + certificate, false},
		{"require", "Require ip 10.0.0.0/8\n" + certificate, false},
		{"optional", "<RequireAll>\nRequire method GET\n<RequireAny>\nRequire local\n" + certificate +
			"\n</RequireAny>\n</RequireAll>", false},
		{"optional", "<RequireAll>\n" + certificate +
			"\n<RequireAny>\nRequire local\nRequire method GET\n</RequireAny>\n</RequireAll>", false},
		{
			"optional",
			"<RequireAll>\nRequire all granted\n<RequireNone>\nRequire expr %{SSL_CLIENT_S_DN_CN} == 'eve'\n" +
				"</RequireNone>\n</RequireAll>", true,
		},
		{"optional", "<RequireAny>\nRequire all denied\n" + certificate + "\n</RequireAny>", false},
		{"optional", "<LimitExcept GET HEAD>\n" + certificate + "\n</LimitExcept>", false},
		{"optional", "<Limit POST>\n" + certificate + "\n</Limit>", false},
		{"optional", "<If \"%{REQUEST_METHOD} == 'POST'\">\n" + certificate + "\n</If>", false},
		{"optional", "Satisfy any\nOrder deny,allow\nDeny from all\nAllow from 10.0.0.0/8\n" + certificate, false},
		{"optional", "Satisfy any\nOrder deny,allow\nDeny from all\nAllow from 10.0.0.0/8", false},
		{"optional", "Require ip 10.0.0.0/8", false},
	} {
		files := fstest.MapFS{"site.conf": {Data: []byte(fmt.Sprintf(narrowedSite, c.verify, c.lines))}}
		r, err := apache.Convert(apache.Config{FS: files}, "/site.conf")
		if err != nil {
			t.Fatal(err)
		}
		narrowed := false
		var notes strings.Builder
		for _, n := range r.Notes {
			narrowed = narrowed || n.Severity == apache.Narrowed
			notes.WriteString(n.String() + "\n")
		}
		if narrowed != c.narrowed {
			t.Errorf("%s: %s: narrowed %v\n%s%s", c.verify, c.lines, narrowed, notes.String(), r.Caddyfile)
		}
	}
}
