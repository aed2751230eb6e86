package front

import (
	"strings"
	"testing"
)

// TestDefaultsLeaveWhatIsSaid applies the defaults to configurations that say
// something about logs themselves.
func TestDefaultsLeaveWhatIsSaid(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing": {
			"localhost {\n}",
			`"default":{"exclude":["admin","http.auto_https","http.acme_client","tls.issuance.postern_acme",` +
				`"tls.obtain","tls.renew"],"level":"WARN"}`,
		},
		"an access log": {
			"localhost {\n\tlog {\n\t\toutput discard\n\t}\n}",
			`"default":{"exclude":["http.log.access.log0","admin","http.auto_https","http.acme_client",` +
				`"tls.issuance.postern_acme","tls.obtain","tls.renew"],"level":"WARN"}`,
		},
		"the log itself": {"{\n\tlog {\n\t\tlevel DEBUG\n\t}\n}\nlocalhost {\n}", `"default":{"level":"DEBUG"}`},
	} {
		config, _, err := Adapt([]byte(c.text), "Caddyfile")
		if err != nil {
			t.Fatal(err)
		}
		if config, err = (Defaults{}).Apply(config); err != nil || !strings.Contains(string(config), c.want) {
			t.Errorf("%s: %v %s", name, err, config)
		}
	}
}
