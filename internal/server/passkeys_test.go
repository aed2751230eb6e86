package server

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// sends sends a form as the page's script does, and reads the JSON answer.
func (v *visitor) sends(path string, status int, fields ...string) map[string]json.RawMessage {
	v.t.Helper()
	form := url.Values{}
	if m := csrfRE.FindStringSubmatch(v.get("/passkeys").body); m != nil {
		form.Set("csrf", m[1])
	}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.rig.url+path,
		strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	a := v.do(req)
	var answer map[string]json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || a.StatusCode != status {
		v.t.Fatalf("%s: %d, want %d: %s", path, a.StatusCode, status, a.body)
	}
	return answer
}

// begun asks for what an authenticator needs to make a passkey.
func (v *visitor) begun() (options []byte, state string) {
	v.t.Helper()
	answer := v.sends("/passkeys/begin", 200)
	if err := json.Unmarshal(answer["state"], &state); err != nil {
		v.t.Fatal(err)
	}
	return answer["options"], state
}

// passkeyOf returns a person's one passkey.
func (rig *portalRig) passkeyOf(t *testing.T, name string) postern.Credential {
	t.Helper()
	all, err := rig.db.People().CredentialsOf(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Kind == postern.Passkey {
			return c
		}
	}
	t.Fatalf("%s has no passkey", name)
	return postern.Credential{}
}

func TestPasskeys(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan, codes := rig.withCodes(t, "dan")
	eve := rig.enrolled(t, "eve")
	a := posterntest.NewAuthenticator(t, rig.url, "localhost")
	options, state := dan.begun()
	response := string(a.Make(options))
	eve.sends("/passkeys/add", 400, "label", "mine", "state", state, "response", response)
	dan.sends("/passkeys/add", 403, "label", "phone", "state", state, "response", "{}")
	dan.sends("/passkeys/add", 400, "label", strings.Repeat("x", 100), "state", state, "response", response)
	dan.sends("/passkeys/add", 200, "label", "phone", "state", state, "response", response)
	dan.sends("/passkeys/add", 403, "label", "phone", "state", state, "response", response)
	dan.get("/passkeys").says(t, 200, "phone")
	rig.mail.TakeAbout(t, "dan@example.com", "The passkey phone was added")
	if again, _ := dan.begun(); !strings.Contains(string(again), "excludeCredentials") {
		t.Errorf("an authenticator would make a second passkey for the same person: %s", again)
	}

	c := rig.passkeyOf(t, "dan")
	eve.post("/passkeys", "id", c.ID, "do", "remove").says(t, 404, "no such passkey")
	rig.newVisitor(t).post("/passkeys/begin").says(t, 403, "")
	dan.post("/passkeys", "id", c.ID, "do", "rename", "label", "  blue <key> ").says(t, 303, "")
	dan.get("/passkeys").says(t, 200, html.EscapeString("blue <key>"))
	dan.post("/passkeys", "id", c.ID, "do", "disable").says(t, 303, "")
	dan.get("/passkeys").says(t, 200, "disabled")
	dan.post("/passkeys", "id", c.ID, "do", "enable").says(t, 303, "")
	rig.mail.TakeAbout(t, "dan@example.com", "The passkey blue <key> was enabled again")
	dan.post("/passkeys", "id", c.ID, "do", "steal").says(t, 404, "")

	// A recovery disables it, also where the person keeps what makes codes.
	rig.newVisitor(t).post("/recover", "who", "dan", "recovery", codes[0], "keep", "1").
		says(t, 200, "passkey "+html.EscapeString("blue <key>"))
	if c = rig.passkeyOf(t, "dan"); c.Status != postern.CredentialDisabled {
		t.Errorf("after a recovery the passkey is %s", c.Status)
	}
}

func TestRemovedPasskeyStaysSo(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	options, state := dan.begun()
	response := string(posterntest.NewAuthenticator(t, rig.url, "localhost").Make(options))
	dan.sends("/passkeys/add", 200, "state", state, "response", response)
	c := rig.passkeyOf(t, "dan")
	dan.post("/passkeys", "id", c.ID, "do", "remove").says(t, 303, "")
	dan.get("/passkeys").says(t, 200, "None yet.")
	dan.post("/passkeys", "id", c.ID, "do", "enable").says(t, 404, "")
	dan.post("/keys", "kind", "passkey", "id", c.ID, "do", "enable").says(t, 404, "")
}

// byPasskey asks for a link with an authenticator, and returns it.
func (v *visitor) byPasskey(a *posterntest.Authenticator, status int) (link string) {
	v.t.Helper()
	begun := v.sends("/passkey/begin", 200)
	var state string
	if err := json.Unmarshal(begun["state"], &state); err != nil {
		v.t.Fatal(err)
	}
	answer := v.sends("/passkey/link", status, "state", state, "response", string(a.Sign(begun["options"])))
	if status == 200 {
		if err := json.Unmarshal(answer["to"], &link); err != nil {
			v.t.Fatal(err)
		}
	}
	return link
}

// TestCertificateByPasskey gets a certificate with a passkey alone, and none with one
// that is not valid any more.
func TestCertificateByPasskey(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	a := posterntest.NewAuthenticator(t, rig.url, "localhost")
	options, state := dan.begun()
	dan.sends("/passkeys/add", 200, "label", "phone", "state", state, "response", string(a.Make(options)))
	c := rig.passkeyOf(t, "dan")

	anyone := rig.newVisitor(t)
	anyone.get("/").says(t, 200, "I have a passkey")
	anyone.get("/recover").says(t, 200, "With a passkey")
	code := func(link string) string { return linkRE.FindStringSubmatch(link)[1] }
	phone, _ := anyone.enrol(code(anyone.byPasskey(a, 200)), "phone")
	if phone == nil {
		t.Fatal("no certificate by a passkey")
	}
	phone.get("/").says(t, 200, "Hello dan")
	phone.get("/events").says(t, 200, "One-time link made")

	// What was made with a passkey that is disabled then, is void.
	stolen := code(anyone.byPasskey(a, 200))
	dan.post("/passkeys", "id", c.ID, "do", "disable").says(t, 303, "")
	if v, _ := anyone.enrol(stolen, "attacker"); v != nil {
		t.Error("a link of a passkey that was disabled grants a certificate")
	}
	anyone.byPasskey(a, 403)
	dan.get("/events").says(t, 200, "This passkey is not accepted")
	dan.post("/passkeys", "id", c.ID, "do", "enable").says(t, 303, "")
	anyone.byPasskey(a, 200)
	a.Flags &^= posterntest.UserVerified
	anyone.byPasskey(a, 403)
	a.Flags |= posterntest.UserVerified
	boss := rig.enrolled(t, "boss", "admin")
	boss.post("/admin/people/dan/suspend").says(t, 303, "")
	anyone.byPasskey(a, 403)
}

// TestBrowserPasskeys adds, names and removes passkeys in real Chromium, by an
// authenticator that DevTools imitates, at a phone's width.
func TestBrowserPasskeys(t *testing.T) {
	rig := newPortalRig(t, nil)
	rig.person(t, "dan")
	in := rig.browserFor(t, "dan")
	in.run(chromedp.EmulateViewport(390, 844))
	if _, err := chromedp.Call(in.ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	added, err := chromedp.Call(in.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, AutomaticPresenceSimulation: true,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(yes bool) {
		t.Helper()
		if _, err := chromedp.Call(in.ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{
			AuthenticatorID: added.AuthenticatorID, IsUserVerified: yes,
		}); err != nil {
			t.Fatal(err)
		}
	}
	press := chromedp.Click(chromedp.CSS(`form[data-passkey] [data-go]`))

	in.run(chromedp.Navigate(rig.url+"/keys"), chromedp.Click(chromedp.CSS(`a[href="/passkeys"]`)))
	in.sees("None yet.")
	in.run(press)
	in.sees("No passkey was used")
	verify(true)
	in.run(chromedp.SendKeys(chromedp.CSS(`#f-label`), "phone"), press)
	in.sees("The passkey is added.")
	in.run(press)
	in.sees("has a passkey for you already")
	if wide := eval[int](in, `document.documentElement.scrollWidth`); wide > 390 {
		t.Errorf("the page is %d pixels wide on a phone", wide)
	}

	c := rig.passkeyOf(t, "dan")
	if c.Label != "phone" || c.Status != postern.CredentialActive {
		t.Errorf("the passkey is %+v", c)
	}
	in.run(chromedp.Navigate(rig.url+"/passkey"), press)
	in.sees("For dan.")
	in.run(chromedp.Navigate(rig.url + "/passkeys"))
	in.run(chromedp.Click(chromedp.CSS(`summary`)), chromedp.Click(chromedp.CSS(`[value="remove"]`)))
	in.sees("The passkey is removed for good")
	in.run(chromedp.Navigate(rig.url + "/events"))
	in.sees("Passkey changed\n" + c.ID)
}
