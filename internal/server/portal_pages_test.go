package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/posterntest"
)

// unfit is a script that lists what does not fit or cannot be used: content wider
// than the window, a control without a name, a target too small to touch, a heading
// that skips a level, text with too little contrast to its background.
const unfit = `(() => {
	const bad = [];
	const seen = e => e.checkVisibility({ visibilityProperty: true });
	if (document.documentElement.scrollWidth > innerWidth) {
		const wide = [...document.querySelectorAll("main *, header *, footer *")]
			.filter(e => e.getBoundingClientRect().right > innerWidth + 1);
		bad.push("wider than the window: " + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 80)).join(" | "));
	}
	for (const e of document.querySelectorAll("input:not([type=hidden]), textarea, select")) {
		if (seen(e) && !(e.labels?.length || e.ariaLabel)) bad.push("no label: " + e.outerHTML.slice(0, 80));
	}
	for (const e of document.querySelectorAll("button, a.button, nav a, summary, select")) {
		const box = e.getBoundingClientRect();
		if (seen(e) && (box.height < 24 || box.width < 24)) bad.push("too small: " + e.outerHTML.slice(0, 80));
	}
	let level = 0;
	for (const e of document.querySelectorAll("h1, h2, h3")) {
		if (!seen(e)) continue;
		const n = Number(e.tagName[1]);
		if (n > level + 1) bad.push("heading jumps: " + e.textContent);
		level = n;
	}
	if (document.querySelectorAll("h1").length !== 1) bad.push("not one h1");
	const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
	ids.filter((id, i) => ids.indexOf(id) !== i).forEach(id => bad.push("id twice: " + id));
	const rgb = text => text.match(/[\d.]+/g).map(Number);
	const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
		.reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c.length < 4 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	for (const e of document.querySelectorAll("main *, header *, footer *")) {
		if (!seen(e) || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
		const contrast = (a + .05) / (b + .05);
		if (contrast < 4.5) bad.push("contrast " + contrast.toFixed(2) + ": " + e.outerHTML.slice(0, 80));
	}
	return bad;
})()`

// recoverWith uses a person's recovery code, on the page for it.
const recoverWith = `document.querySelector("[name=who]").value = "lost"; ` +
	`document.querySelector("[name=recovery]").value = %q; document.querySelector("form button").click()`

// TestEveryPageFits opens every page in Chromium on a phone and a desktop, in
// light and dark. With POSTERN_SCREENSHOTS set to a directory the pages are
// kept there to be looked at.
func TestEveryPageFits(t *testing.T) {
	rig := newServerRig(t)
	rig.SignUp, rig.RecoverByMail = []string{"example.com"}, true
	boss := rig.enrolled(t, "boss", "admin", "ops")
	for _, key := range []postern.Credential{
		{Kind: postern.YubiKey, ID: "vvccccbdefgh", Person: "boss", Label: "blue key"},
		{
			Kind: postern.Passkey, ID: "5a5ad45fd0b1d9a9fd6b9e3a20a2d2a4", Person: "boss",
			Label: "a rather long name for a phone",
		},
	} {
		if err := rig.db.People().PutCredential(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	rig.enrolled(t, "dan")
	if err := rig.Store.PutAllowed(t.Context(), postern.Actor{}, portal.Allowed{Pattern: "*.internal", By: "boss"},
		postern.Event{Kind: postern.EventPortalAllowed}); err != nil {
		t.Fatal(err)
	}
	open := boss.order("names",
		"www.example.org a-rather-long-name-for-a-server.department.example.org *.example.org 192.0.2.7")
	asked := boss.order("names", "printer.lan")
	boss.post(asked+"/ask", "name", "printer.lan").says(t, 303, "")
	ready, spare := boss.order("names", "www.internal"), boss.order("names", "mail.internal")
	_, csr := clientCSR(t)
	server := boss.post(boss.order("names", "db.internal *.db.internal")+"/issue", "csr",
		string(csr)).Header.Get("Location")

	rig.person(t, "newcomer", postern.SignedUp)
	_, codes := rig.withCodes(t, "lost")
	rig.person(t, "mallory")
	suspended := rig.browserFor(t, "mallory")
	boss.post("/admin/people/mallory/suspend").says(t, 303, "")
	boss.post("/admin/hosts", "name", "hv1", "names", "hv1.example.com").says(t, 200, "pjt_")
	call := ran("vm3")
	call.Took = 41 * time.Millisecond
	rig.happens(t, call, postern.Event{Kind: postern.EventCheckDisk, Object: "server", Outcome: postern.Failed})
	in := rig.browserFor(t, "boss")
	out := posterntest.NewBrowser(t)
	out.Trust(rig.rootFile(t))
	signedOut := openTab(t, out, false)
	plain, plainSignedOut := in.withoutScript(), signedOut.withoutScript()
	who, _ := rig.db.People().Person(t.Context(), "dan")
	made, err := rig.Links.Recover(t.Context(), postern.Actor{}, who)
	if err != nil {
		t.Fatal(err)
	}
	s := rig.newVisitor(t)
	s.post("/signup", "email", "new@example.com")
	fresh := linkRE.FindString(rig.mail.Take(t, "new@example.com").Text)
	boss.post(open+"/mail", "name", "www.example.org", "to", "admin@example.org").says(t, 303, "")
	prove := linkRE.FindString(rig.mail.Take(t, "admin@example.org").Text)

	pages := []struct {
		tab        *tab
		name, path string
		then       string // an expression to run on the page
		words      string
	}{
		{signedOut, "welcome", "/", "", "I was sent a link"},
		{signedOut, "welcome-lost", "/certificates", "", "needs your certificate"},
		{signedOut, "enrol", "/enrol", "", "The code of your link"},
		{signedOut, "enrol-recover", strings.TrimPrefix(made.URL, rig.url), "", "becomes invalid"},
		{signedOut, "enrol-signup", strings.TrimPrefix(fresh, rig.url), "", "Your name here"},
		{
			signedOut, "enrol-errors", strings.TrimPrefix(fresh, rig.url),
			`document.querySelector(".own").open = true; document.querySelector("[data-go]").click()`, "at least 10",
		},
		{signedOut, "signup", "/signup", "", "Your e-mail address"},
		{signedOut, "signup-error", "/signup", `document.querySelector("form button").click()`, "not an e-mail"},
		{
			signedOut, "mailed", "/signup",
			`document.querySelector("[name=email]").value = "a@example.com"; ` +
				`document.querySelector("form button").click()`, "is being sent",
		},
		{signedOut, "recover", "/recover", "", "recovery code"},
		{signedOut, "recovered", "/recover", fmt.Sprintf(recoverWith, codes[0]), "Revoked or disabled just now"},
		{suspended, "suspended", "/", "", "has suspended you"},
		{signedOut, "passkey", "/passkey", "", "Use my passkey"},
		{signedOut, "prove", strings.TrimPrefix(prove, rig.url), "", "Refuse"},
		{
			signedOut, "trust", "/trust", `document.querySelectorAll("details").forEach(d => d.open = true)`,
			"fingerprint",
		},
		{
			signedOut, "import", "/import", `document.querySelectorAll("details").forEach(d => d.open = true)`,
			"pk12util",
		},
		{signedOut, "error", "/nowhere", "", "no such page"},
		{in, "home", "/", "", "Hello boss"},
		{in, "enrol-known", strings.TrimPrefix(made.URL, rig.url), "", "becomes invalid"},
		{in, "devices", "/certificates", "", "this device"},
		{in, "device", "/certificates/" + boss.serial, "", "Revoke"},
		{in, "device-new", "/certificates/new", "", "In this browser"},
		{in, "device-link", "/certificates/new", `document.querySelector("form button").click()`, "can be used once"},
		{
			in, "device-made", "/certificates/new",
			`(() => { const f = document.querySelector("[data-make]"); ` +
				`f.querySelector("[name=label]").value = "tablet"; ` +
				`f.querySelector("[data-pass]").value = f.querySelector("[data-pass2]").value = ` +
				`"long enough a passphrase"; f.querySelector("[data-go]").click() })()`, "Save the certificate",
		},
		{in, "servers", "/servers", "", "db.internal"},
		{in, "order-new", "/servers/new", `document.querySelector(".own").open = true`, "Names of the server"},
		{in, "order", open, `document.querySelectorAll("details").forEach(d => d.open = true)`, "not proved yet"},
		{in, "order-ready", ready, "", "All names are proved"},
		{in, "order-made", ready, `document.querySelector("[data-go]").click()`, "Your server"},
		{in, "server", server, "", "For your server"},
		{in, "keys", "/keys", "", "blue key"},
		{in, "keys-add", "/keys", `document.querySelectorAll("details").forEach(d => d.open = true)`, "touch the key"},
		{
			in, "keys-wrong", "/keys", `document.querySelector("[action='/keys/yubikey'] button").click()`,
			"not what a YubiKey types",
		},
		{
			in, "totp", "/keys", `document.querySelector("[action='/keys/totp'] button").click()`,
			"Show this to your app",
		},
		{
			in, "ssh-wrong", "/keys", `document.querySelector("[action='/keys/ssh'] button").click()`,
			"no SSH public key",
		},
		{
			in, "ssh-certificate", "/keys",
			`document.getElementById("f-public_key").value = ` +
				`"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC1pTpCGLTgYsqe9Uq0sFw9IJCyXmQJoFhF4eqr0wyeb"; ` +
				`document.querySelector("[action='/keys/ssh'] button").click()`, "-cert.pub",
		},
		{in, "acme-key", "/keys", `document.querySelector("[action='/keys/acme'] button").click()`, "HMAC key"},
		{
			in, "passkeys", "/passkeys", `document.querySelectorAll("details").forEach(d => d.open = true)`,
			"Remove for good",
		},
		{plain, "plain-passkeys", "/passkeys", "", "Without JavaScript"},
		{in, "recovery", "/recovery", "", "New codes replace"},
		{in, "recovery-made", "/recovery", `document.querySelector("form button").click()`, "Print these"},
		{in, "events", "/events", "", "newest first"},
		{
			in, "timeline", "/admin/timeline", `document.querySelectorAll("details").forEach(d => d.open = true)`,
			"Live",
		},
		{in, "timeline-filtered", "/admin/timeline?person=dan&outcome=ok", "", "take out"},
		{in, "entry", "/admin/timeline/3", "", "Download the proof"},
		{plain, "plain-timeline", "/admin/timeline", "", "Newest first"},
		{in, "now", "/admin", "", "Signed in to hosts"},
		{in, "people", "/admin/people", "", "Invite a person"},
		{in, "person", "/admin/people/dan", "", "Suspend"},
		{in, "person-new", "/admin/people/newcomer", "", "Approve"},
		{
			in, "person-wrong", "/admin/people/dan",
			`document.querySelector("[name=email]").value = "nonsense"; ` +
				`document.querySelector("[action$='/change'] button").click()`, "not an e-mail address",
		},
		{in, "hosts", "/admin/hosts", "", "Add a host"},
		{in, "host", "/admin/hosts/hv1", "", "Signed in now"},
		{in, "names", "/admin/names", "", "printer.lan"},
		{plainSignedOut, "plain-enrol", "/enrol", "", "Without JavaScript this page cannot make a key"},
		{plainSignedOut, "plain-prove", "/prove", "", "Continue"},
		{plain, "plain-device-new", "/certificates/new", "", "Without JavaScript"},
		{plain, "plain-order", spare, "", "Without JavaScript"},
		{plain, "plain-device", "/certificates/" + boss.serial, "", "I made the key myself"},
		{plain, "plain-recovery", "/recovery", "", "New codes replace"},
	}
	t.Run("live", func(t *testing.T) {
		in.t = t
		in.opens(rig.url+"/admin/timeline?machine=vm-live", "", "Live")
		rig.happens(t, ran("vm-live"))
		in.sees("ran domainDestroy on vm-live")
	})
	for _, p := range pages {
		t.Run(p.name, func(t *testing.T) {
			p.tab.t = t
			p.tab.opens(rig.url+p.path, p.then, p.words)
			for _, width := range []int64{390, 1280} {
				for _, scheme := range []string{"light", "dark"} {
					p.tab.fits(p.name, width, scheme)
				}
			}
		})
	}
}

// opens opens a page, runs an expression on it and waits for words.
func (d *tab) opens(url, then, words string) {
	d.t.Helper()
	d.run(chromedp.Navigate("about:blank"), chromedp.Navigate(url))
	if then != "" {
		eval[any](d, then+"; null")
	}
	d.sees(words)
	// As if saved: a page with a key that was not asks before it is left.
	eval[any](d, `document.querySelectorAll("[download]").forEach(a => a.dispatchEvent(new Event("click"))); null`)
}

// fits evaluates [unfit] on the open page at a width and in a colour scheme. The
// page is kept as a picture if POSTERN_SCREENSHOTS names a directory.
func (d *tab) fits(name string, width int64, scheme string) {
	d.t.Helper()
	d.run(chromedp.EmulateViewport(width, 900))
	if _, err := chromedp.Call(d.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		},
	}); err != nil {
		d.t.Fatal(err)
	}
	if bad := eval[[]string](d, unfit); len(bad) > 0 {
		d.t.Errorf("%d pixels, %s: %s", width, scheme, strings.Join(bad, "\n\t"))
	}
	if dir := os.Getenv("POSTERN_SCREENSHOTS"); dir != "" {
		shot, err := chromedp.Run(d.ctx, chromedp.FullScreenshot(90))
		if err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.jpg", name, width, scheme)), shot,
			0o644); err != nil {
			d.t.Fatal(err)
		}
	}
}

// withoutScript opens another tab of the same browser, where pages run no script.
func (d *tab) withoutScript() *tab {
	d.t.Helper()
	ctx, end := chromedp.NewContext(d.ctx)
	d.t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil { // opens it, for as long as ctx
		d.t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		d.t.Fatal(err)
	}
	return &tab{t: d.t, ctx: ctx, dir: d.dir, plain: true}
}

// browserFor enrols one more device of a person, a browser, and opens it.
func (rig *portalRig) browserFor(t *testing.T, name string) *tab {
	t.Helper()
	who, err := rig.db.People().Person(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	made, err := rig.Links.Device(t.Context(), postern.Actor{}, who)
	if err != nil {
		t.Fatal(err)
	}
	b := posterntest.NewBrowser(t)
	b.Trust(rig.rootFile(t))
	d := openTab(t, b, false)
	d.run(chromedp.Navigate(made.URL))
	d.sees("For " + name)
	d.makes("browser")
	b.Import(d.saves(`[data-p12]`), passphrase)
	return openTab(t, b, true)
}

// TestTheLastAdministratorCannotLeave removes an administrator from the group, by a
// command and by the pages. It is refused until there is another active one.
func TestTheLastAdministratorCannotLeave(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	rig.person(t, "second", "admin")
	if _, err := rig.people().SetStatus(t.Context(), "second", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	groups := func() string {
		who, err := rig.db.People().Person(t.Context(), "boss")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(who.Groups, " ")
	}
	_, err := rig.people().Change(t.Context(), "boss", people.Change{Drop: []string{"admin"}})
	if !errors.Is(err, portal.ErrLastAdministrator) || postern.HintOf(err) == "" || groups() != "admin" {
		t.Errorf("by a command: %v; %s", err, groups())
	}
	boss.post("/admin/people/boss/change", "email", "boss@example.com", "groups", "ops").says(t, 400,
		"boss is the last administrator")
	if got := groups(); got != "admin" {
		t.Errorf("by a page: %s", got)
	}
	if _, err := rig.people().SetStatus(t.Context(), "second", postern.PersonActive); err != nil {
		t.Fatal(err)
	}
	boss.post("/admin/people/boss/change", "email", "boss@example.com", "groups", "ops").says(t, 303, "")
	if got := groups(); got != "ops" {
		t.Errorf("with another administrator: %s", got)
	}
}
