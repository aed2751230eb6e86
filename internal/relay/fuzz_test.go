package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// FuzzParseBatch holds what is accepted of foreign bytes against what a sender
// may say.
func FuzzParseBatch(f *testing.F) {
	const head = `{"agent":"00112233445566778899aabbccddeeff","host":"hv1"}` + "\n"
	f.Add(head + `{"seq":1,"event":{"index":0,"time":"2026-11-24T08:00:00Z","kind":"libvirt.call","outcome":"ok",` +
		`"host":"hv1","links":[{"kind":"session","id":"hv1/b/7"}],"details":{"procedure":"domainDestroy"}}}`)
	f.Add(head + `{"seq":1,"event":{"kind":"ssh.auth","person":"alice"}}`)
	f.Add(head)
	f.Add("{")
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body string) {
		_, batch, err := parseBatch(strings.NewReader(body), Source{Name: "x", Host: "hv1"}, now)
		if err != nil {
			return
		}
		last := int64(0)
		for _, n := range batch {
			ofAgent := strings.HasPrefix(n.Event.Kind, "libvirt.") || strings.HasPrefix(n.Event.Kind, "agent.")
			if n.Seq <= last || n.Event.Person != "" || n.Event.Host != "hv1" || !ofAgent {
				t.Errorf("accepted: %+v", n)
			}
			for _, l := range n.Event.Links {
				if l.Kind == string(postern.YubiKey) || l.Kind == string(postern.SSHCertificate) {
					t.Errorf("accepted: %+v", l)
				}
			}
			last = n.Seq
		}
	})
}
