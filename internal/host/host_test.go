package host

import (
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

func TestTokens(t *testing.T) {
	root := &x509.Certificate{Raw: []byte("root")}
	token := newToken(root)
	text := token.Text()
	again, err := ParseToken(" " + text + "\n")
	if err != nil || again != token || len(text) != 68 || again.Root != Fingerprint(root) {
		t.Errorf("%q is %+v, %v", text, again, err)
	}
	if other := newToken(root); string(other.Hash()) == string(token.Hash()) {
		t.Error("two tokens are alike")
	}
	for _, bad := range []string{
		"", text[1:], text[:67], text + "A", tokenPrefix, strings.Replace(text, "_", "-", 1),
	} {
		if _, err := ParseToken(bad); postern.CodeOf(err) != postern.Invalid || bad != "" &&
			strings.Contains(err.Error()+postern.HintOf(err), bad) && bad != tokenPrefix {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWhatToLookAt(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	now := Now{Time: at, Version: "2", KRL: 7}
	well := postern.Host{
		Name: "hv1", Status: postern.HostJoined, Joined: at.Add(-time.Hour), Heard: at.Add(-time.Minute),
		HostReport: postern.HostReport{Version: "2", Serves: []string{"ssh"}, KRL: 7},
	}
	for what, c := range map[string]struct {
		change func(*postern.Host)
		want   string
	}{
		"well": {func(*postern.Host) {}, ""},
		"silent": {func(h *postern.Host) {
			h.Heard = at.Add(-Late)
		}, "has not reported since 2026-11-30T11:55:00Z"},
		"just joined": {func(h *postern.Host) { h.Joined, h.Heard = at, time.Time{} }, ""},
		"never heard": {func(h *postern.Host) {
			h.Heard = time.Time{}
		}, "has not reported since 2026-11-30T11:00:00Z"},
		"another version": {func(h *postern.Host) { h.Version = "1" }, "runs version 1, the server 2"},
		"an old list":     {func(h *postern.Host) { h.KRL = 6 }, "its SSH revocation list is not the newest"},
		"no sshd":         {func(h *postern.Host) { h.KRL, h.Serves = 0, []string{"libvirt"} }, ""},
		"suspended":       {func(h *postern.Host) { h.Status, h.Heard = postern.HostSuspended, time.Time{} }, ""},
	} {
		h := well
		c.change(&h)
		if got := strings.Join(now.Look(h).Warnings, "; "); got != c.want {
			t.Errorf("%s: %q, not %q", what, got, c.want)
		}
	}
}

// FuzzHostRequest reads what a host may send.
func FuzzHostRequest(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"token":"AAAA","csr":"-----BEGIN","ssh_keys":["ssh-ed25519 AAAA"],"report":{"krl":-1}}`, `[]`, `{}{}`,
		`{"ssh_keys":["","","","","","","","",""]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err != nil {
			return
		}
		if verifyRequest(r.Token, body, r.Nonce) == nil {
			t.Error("a request that no token signed is accepted")
		}
		_, _ = parseKeys(r.SSHKeys)
		for _, p := range r.Report.Clean().Problems {
			if len(p) > 256 || strings.ContainsAny(p, "\n\x00") {
				t.Errorf("%q is kept", p)
			}
		}
	})
}

// suspending is a body: the host that sends it is suspended meanwhile.
type suspending struct {
	io.Reader
	suspended bool
}

func (s *suspending) Read(b []byte) (int, error) { s.suspended = true; return s.Reader.Read(b) }

// TestAHostIsSuspendedWhileItSends suspends a host while it sends its request: it gets
// nothing for it.
func TestAHostIsSuspendedWhileItSends(t *testing.T) {
	body := &suspending{Reader: strings.NewReader("{}")}
	h := NewHandler(Config{
		Identify: func(*http.Request) (Shown, error) {
			if body.suspended {
				return Shown{}, postern.Errorf(postern.Denied, "the host is suspended")
			}
			return Shown{Host: postern.Host{Name: "hv1"}}, nil
		},
		Address: func(*http.Request) string { return "" }, Log: slog.New(slog.DiscardHandler),
	}) // without an authority, which nothing is asked of
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, RefreshPath, body))
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
}
