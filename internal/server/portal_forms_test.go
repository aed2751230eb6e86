package server

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/piv/pivtest"
	"github.com/postern-project/postern/internal/portal"
)

func TestCrossSiteFormsAreRefused(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	token := csrfRE.FindStringSubmatch(dan.get("/certificates/new").body)[1]
	send := func(change func(*http.Request)) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rig.url+"/certificates/"+dan.serial+
			"/revoke", strings.NewReader("reason=lost&csrf="+token))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		change(req)
		return dan.do(req).StatusCode
	}
	for name, change := range map[string]func(*http.Request){
		"another site's form": func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Origin", "https://evil.example")
		},
		"a sibling's form":        func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"an old browser's form":   func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"a sandboxed page's form": func(r *http.Request) { r.Header.Set("Origin", "null") },
		"a form without its token": func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("reason=lost"))
			r.ContentLength = 11
		},
	} {
		if status := send(change); status != 403 {
			t.Errorf("%s: %d", name, status)
		}
	}
	eve := rig.enrolled(t, "eve")
	dan.post("/recovery", "csrf", csrfRE.FindStringSubmatch(eve.get("/certificates/new").body)[1]).says(t, 403,
		"another sign-in")
	dan.get("/").says(t, 200, "Hello dan")
}

func TestEveryAnswerIsSecured(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	for _, path := range []string{
		"/", "/enrol", "/trust", "/certificates", "/nowhere", "/root.pem",
		"/static/none.js",
	} {
		a := dan.get(path)
		h := a.Header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{
			"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'",
			"form-action 'self'",
		} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: no %s in %q", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("Referrer-Policy") != "no-referrer" ||
			h.Get("X-Frame-Options") != "DENY" ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cross-Origin-Opener-Policy") != "same-origin" ||
			len(a.Cookies()) > 0 {
			t.Errorf("%s: headers %v", path, h)
		}
		if regexp.MustCompile(`(?i)<script(?:>|[^>]* src="(?:https?:)?//)|<style| style=| on[a-z]+=|javascript:`).
			MatchString(a.body) {
			t.Errorf("%s has inline script or style, or asks a third party", path)
		}
	}
}

// TestEveryFormHasItsToken checks that a person with a certificate can use the forms of
// the public pages, too.
func TestEveryFormHasItsToken(t *testing.T) {
	rig := newPortalRig(t, func(c *portal.Config) { c.SignUp, c.RecoverByMail = []string{"example.com"}, true })
	boss := rig.enrolled(t, "boss", "admin")
	rig.person(t, "newcomer", postern.SignedUp)
	form := regexp.MustCompile(`(?s)<form.*?</form>`)
	for _, path := range []string{
		"/enrol", "/prove", "/recover", "/signup", "/recovery", "/certificates/new", "/certificates/" + boss.serial,
		"/servers/new", "/keys",
		"/admin/people", "/admin/names", "/admin/people/newcomer", "/admin/people/boss",
	} {
		forms := form.FindAllString(boss.get(path).body, -1)
		if len(forms) == 0 {
			t.Errorf("%s has no form", path)
		}
		for _, f := range forms {
			if strings.Contains(f, `method="post"`) && !csrfRE.MatchString(f) {
				t.Errorf("%s: a person with a certificate cannot send %s", path, f[:min(len(f), 100)])
			}
		}
	}
}

// TestAttestedKeyByForm sends the attestation of a YubiKey with the certificate request.
func TestAttestedKeyByForm(t *testing.T) {
	rig := newPortalRig(t, nil)
	maker, key := pivtest.NewMaker(t), pivtest.NewKey(t)
	if err := os.WriteFile(rig.makers, maker.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	dan, csr := rig.enrolled(t, "dan"), string(csrOf(t, key))
	send := func(attestation []byte) answer {
		return dan.post("/certificates/new", "label", "YubiKey", "csr", csr, "attestation", string(attestation))
	}
	send(maker.Attest(&pivtest.NewKey(t).PublicKey)).says(t, 403, "is of another key")
	send([]byte("none")).says(t, 400, "attestation cannot be read")
	send(maker.Attest(&key.PublicKey)).says(t, 200, "BEGIN CERTIFICATE")
	send(maker.Attest(&key.PublicKey)).says(t, 200, "BEGIN CERTIFICATE") // the answer was lost
	for _, c := range certificatesOf(t, rig, "dan") {
		shown := strings.Contains(dan.get("/certificates/"+c.Serial).body, "made in a YubiKey 5.7.4, serial number 42")
		if shown != (c.Label == "YubiKey") {
			t.Errorf("%s: shown as attested: %t", c.Label, shown)
		}
	}
}

// TestAttestationComesLate sends it after a certificate for the same key was issued without.
func TestAttestationComesLate(t *testing.T) {
	rig := newPortalRig(t, nil)
	maker, key := pivtest.NewMaker(t), pivtest.NewKey(t)
	if err := os.WriteFile(rig.makers, maker.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	dan, csr := rig.enrolled(t, "dan"), string(csrOf(t, key))
	dan.post("/certificates/new", "label", "YubiKey", "csr", csr).says(t, 200, "BEGIN CERTIFICATE")
	dan.post("/certificates/new", "label", "YubiKey", "csr", csr, "attestation", string(maker.Attest(&key.PublicKey))).
		says(t, 400, "This key is in another certificate already")
}

func certificatesOf(t *testing.T, rig *portalRig, person string) []ca.Certificate {
	t.Helper()
	list, err := rig.ca.Certificates(t.Context(), ca.Filter{Person: person})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestScriptGetsErrorsAsJSON(t *testing.T) {
	rig := newPortalRig(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rig.url+"/enrol",
		strings.NewReader("code=wrong"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	a := rig.newVisitor(t).do(req)
	var said struct{ Errors map[string]string }
	if err := json.Unmarshal([]byte(a.body), &said); err != nil || a.StatusCode != postern.Denied.HTTPStatus() ||
		said.Errors["code"] == "" {
		t.Errorf("%d %s: %v", a.StatusCode, a.body, err)
	}
}
