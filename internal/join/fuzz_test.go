package join

import (
	"encoding/json"
	"testing"

	"github.com/postern-project/postern/internal/host"
)

// FuzzHostAnswer reads what a server may answer.
func FuzzHostAnswer(f *testing.F) {
	h := paperHost(f, includesDropIns)
	for _, seed := range []string{
		`{}`, `{"user_cas":"ssh-ed25519 AAAA","krl":"U1NIS1JMCgA="}`,
		`{"user_cas":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2XvtVXbOIfhW5sbqWsGbZFe4Ky7kxrDWEEGnFMqaOC ca\n",` +
			`"krl":"U1NIS1JMCgAAAAABAAAAAAAAAAc=","ssh_certificates":["x"],"roots":"-----BEGIN CERTIFICATE-----"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var a host.Answer
		if json.Unmarshal(body, &a) != nil {
			return
		}
		_, _ = parseChain([]byte(a.Roots))
		if trust, err := h.trust(a); err == nil && (krlVersion(trust.KRL) < 0 || len(trust.UserCAs) == 0) {
			t.Errorf("sshd would get %q and %q", trust.UserCAs, trust.KRL)
		}
	})
}
