package relay_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
)

// taken is a store that remembers the batch that it was given.
type taken []relay.Numbered

func (k *taken) Relay(_ context.Context, _, _ string, batch []relay.Numbered) (int64, error) {
	*k = batch
	return 0, nil
}

// FuzzParseBatch holds what is accepted of foreign bytes against what a sender
// may say.
func FuzzParseBatch(f *testing.F) {
	const head = `{"agent":"00112233445566778899aabbccddeeff","host":"hv1"}` + "\n"
	f.Add(head + `{"seq":1,"event":{"index":0,"time":"2026-11-24T08:00:00Z","kind":"libvirt.call","outcome":"ok",` +
		`"host":"hv1","links":[{"kind":"session","id":"hv1/b/7"}],"details":{"procedure":"domainDestroy"}}}`)
	f.Add(head + `{"seq":1,"event":{"kind":"ssh.auth","person":"alice"}}`)
	f.Add(head)
	f.Add("{")
	c := relay.Config{
		Source: func(*http.Request) (relay.Source, error) { return relay.Source{Name: "x", Host: "hv1"}, nil },
		Now:    func() time.Time { return time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC) },
	}
	f.Fuzz(func(t *testing.T, body string) {
		var batch taken
		h, err := relay.NewHandler(c, &batch, quiet)
		if err != nil {
			t.Fatal(err)
		}
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, relay.Path, strings.NewReader(body)))
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
