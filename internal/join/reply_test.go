package join

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
)

// between is an attacker between a host and the server, which it is for the host's TLS.
type between struct {
	server  http.Handler
	request func(*http.Request)
	reply   func(*http.Response)
}

func (b between) RoundTrip(r *http.Request) (*http.Response, error) {
	b.request(r)
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	b.server.ServeHTTP(w, r)
	res := w.Result()
	b.reply(res)
	return res, nil
}

// TestAPublicCertificateDecidesNothing has an attacker with a certificate that a host trusts for
// the server's name change questions about logins and their answers, or answer itself.
func TestAPublicCertificateDecidesNothing(t *testing.T) {
	i, other := install(t), install(t)
	shows := "hv1" // the host whose certificate the server sees
	signedBy := func(i *installation) http.Handler {
		return host.SignReplies(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var start [1]byte // a service need not read all
			_, _ = r.Body.Read(start[:])
			switch start[0] {
			case 'r':
				w.WriteHeader(http.StatusBadRequest)
			case 's':
				w.WriteHeader(http.StatusForbidden)
			}
			_, _ = io.WriteString(w, "no")
		}), func(*http.Request) (string, error) { return shows, nil }, i.ca.SignByDelegate,
			slog.New(slog.DiscardHandler))
	}
	unavailable := func(context.Context, []byte) (signature, chain []byte, err error) {
		return nil, nil, errors.New("the key is not here")
	}
	same := func(*http.Response) {}
	asIs := func(*http.Request) {}
	yes := func(w *http.Response) { w.Body = io.NopCloser(strings.NewReader("yes")) }
	var earlier http.Header
	for _, c := range []struct {
		what   string
		body   string
		b      between
		status int // 0: nothing is accepted
	}{
		{what: "an answer", body: "code", b: between{signedBy(i), asIs, func(w *http.Response) {
			earlier = w.Header.Clone()
		}}, status: 200},
		{what: "a long question", body: strings.Repeat("code", 1000), b: between{signedBy(i), asIs, same}, status: 200},
		{what: "no body", b: between{signedBy(i), asIs, same}, status: 200},
		{what: "a refusal", body: "refused", b: between{signedBy(i), asIs, same}, status: 400},
		{what: "of a suspended host", body: "suspended", b: between{signedBy(i), asIs, same}, status: 403},
		{what: "another answer", body: "code", b: between{signedBy(i), asIs, yes}},
		{what: "no signature", body: "code", b: between{signedBy(i), asIs, func(w *http.Response) {
			clear(w.Header)
		}}},
		{what: "an earlier answer", body: "code", b: between{signedBy(i), asIs, func(w *http.Response) {
			for key, value := range earlier {
				w.Header[key] = value
			}
		}}},
		{what: "an answer for a refusal", body: "refused", b: between{signedBy(i), asIs, func(
			w *http.Response,
		) {
			w.StatusCode = http.StatusOK
		}}},
		{what: "another question", body: "code", b: between{signedBy(i), func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("edoc"))
		}, same}},
		{what: "another path", body: "code", b: between{signedBy(i), func(r *http.Request) {
			r.URL.Path = "/b"
		}, same}},
		{what: "sent on as another host", body: "code", b: between{signedBy(i), func(*http.Request) {
			shows = "hv2"
		}, same}},
		{what: "another installation", body: "code", b: between{signedBy(other), asIs, same}},
		{what: "a server without its key", body: "code", b: between{
			host.SignReplies(http.NotFoundHandler(), func(*http.Request) (string, error) { return "hv1", nil },
				unavailable, slog.New(slog.DiscardHandler)), asIs, func(w *http.Response) {
				w.StatusCode = http.StatusOK
			},
		}},
	} {
		shows = "hv1"
		roots := x509.NewCertPool()
		roots.AddCert(i.ca.Root())
		client := host.VerifyReplies(c.b, "hv1", func() (*x509.CertPool, error) { return roots, nil })
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://postern/a?b=c%0A", body)
		must(t, err)
		res, err := client.RoundTrip(r)
		switch {
		case c.status == 0 && postern.CodeOf(err) != postern.Denied, c.status != 0 && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case err == nil && res.StatusCode != c.status:
			t.Errorf("%s: status %d", c.what, res.StatusCode)
		case err == nil:
			if text, err := io.ReadAll(res.Body); err != nil || string(text) != "no" {
				t.Errorf("%s: %q, %v", c.what, text, err)
			}
		}
	}
}
