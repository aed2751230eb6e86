package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ssh"
)

// owner is a person whose laptop was stolen, and what the attacker made with it
// before they noticed.
type owner struct {
	name    string
	laptop  *visitor
	codes   []string // recovery codes on paper
	link    string   // code of a link for another device
	device  *visitor // one that was added
	account string   // ACME's
	serial  uint64   // of an SSH certificate
	order   string   // path
}

var codeFieldRE = regexp.MustCompile(`id="f-linkcode" readonly value="([^"]+)"`)

// newOwner enrols a person, and makes what an attacker with their laptop can make.
func newOwner(t *testing.T, rig *portalRig, name string) *owner {
	t.Helper()
	o := &owner{name: name, account: "account-" + name}
	o.laptop, o.codes = rig.withCodes(t, name)
	key, csr := clientCSR(t)
	added := o.laptop.post("/certificates/new", "label", "attacker's", "csr", string(csr))
	added.says(t, 200, "attacker")
	o.device = rig.with(t, key, added.body)
	o.link = codeFieldRE.FindStringSubmatch(o.device.post("/certificates/link").body)[1]
	shown := o.device.post("/keys/totp", "label", "attacker's app")
	app := regexp.MustCompile(`name="app" value="([^"]+)"`).FindStringSubmatch(shown.body)[1]
	secret := regexp.MustCompile(`secret=([A-Z2-7]+)`).FindStringSubmatch(shown.body)[1]
	o.device.post("/keys/totp/first", "app", app, "first", totpNow(t, secret)).says(t, 303, "")
	kid := regexp.MustCompile(`id="f-kid" readonly value="([^"]+)"`).FindStringSubmatch(o.device.post("/keys/acme",
		"label", "attacker's ACME").body)[1]
	account := acme.Account{ID: o.account, Thumbprint: name, Key: []byte("{}"), Status: "valid", Created: time.Now()}
	if _, _, err := rig.db.ACME().AddAccount(t.Context(), account, kid,
		postern.Event{Kind: postern.EventACMEAccount}); err != nil {
		t.Fatal(err)
	}
	o.device.post("/keys/acme", "label", "unused").says(t, 200, "HMAC key")
	_, line, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	o.device.post("/keys/ssh", "public_key", string(line)).says(t, 200, "-cert.pub")
	certs, err := rig.ca.SSHCertificates(t.Context(), name)
	if err != nil || len(certs) != 1 {
		t.Fatal(certs, err)
	}
	o.serial = certs[0].Serial
	if err := rig.db.People().PutCredential(t.Context(),
		postern.Credential{Kind: postern.SSHKey, ID: "SHA256:" + name, Person: name}); err != nil {
		t.Fatal(err)
	}
	if err := rig.db.OTP().SetBackupCodes(t.Context(), postern.Actor{}, name, [][32]byte{{1}, {2}}); err != nil {
		t.Fatal(err)
	}
	o.order = o.device.order("names", "www."+name+".example")
	return o
}

// isRecovered fails where something that the attacker had or made is still valid.
func (o *owner) isRecovered(t *testing.T, rig *portalRig, otpKept bool) {
	t.Helper()
	for _, v := range []*visitor{o.laptop, o.device} {
		v.get("/certificates").says(t, 403, "needs your certificate")
	}
	if v, a := rig.newVisitor(t).enrol(o.link, "again"); v != nil {
		t.Errorf("a link made before is still valid: %s", a.main())
	}
	// once: tries are counted
	rig.newVisitor(t).post("/recover", "who", o.name, "recovery", o.codes[1]).says(t, 403, "or the code is wrong")
	if n, err := rig.Store.RecoveryCodes(t.Context(), o.name); err != nil || n != 10 && n != 0 {
		t.Errorf("%d recovery codes are left: %v", n, err)
	}
	credentials, err := rig.db.People().CredentialsOf(t.Context(), o.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range credentials {
		want := map[postern.CredentialKind]postern.CredentialStatus{
			postern.TOTP: postern.CredentialDisabled, postern.SSHKey: postern.CredentialDisabled,
			postern.SSHCertificate: postern.CredentialRevoked,
		}[c.Kind]
		if otpKept && c.Kind == postern.TOTP {
			want = postern.CredentialActive
		}
		if want != "" && c.Status != want {
			t.Errorf("%s %s is %s, want %s", c.Kind, c.ID, c.Status, want)
		}
	}
	revoked, _, _, err := rig.db.CA().SSHRevoked(t.Context(), time.Now())
	if err != nil || !slices.ContainsFunc(revoked, func(r ca.SSHRevocations) bool {
		return slices.Contains(r.Serials, o.serial)
	}) {
		t.Errorf("the SSH certificate is not in the KRL: %v", err)
	}
	if a, err := rig.db.ACME().Account(t.Context(), o.account); err != nil || a.Status != "revoked" {
		t.Errorf("the ACME account is %s: %v", a.Status, err)
	}
	keys, err := rig.db.ACME().ExternalKeys(t.Context(), o.name)
	if err != nil || len(keys) != 2 || !keys[0].Disabled || !keys[1].Disabled {
		t.Errorf("the keys for ACME accounts: %+v %v", keys, err)
	}
	if n, err := rig.db.OTP().BackupCodesLeft(t.Context(), o.name); err != nil || n != 0 {
		t.Errorf("%d backup codes are left: %v", n, err)
	}
	if open, err := rig.Store.OrdersOf(t.Context(), o.name, time.Now()); err != nil || len(open) != 0 {
		t.Errorf("open orders: %+v %v", open, err)
	}
	m := rig.mail.TakeAbout(t, o.name+"@example.com", "was recovered")
	for _, want := range []string{
		"certificate of the device attacker's (", "SSH certificate ", "SSH key SHA256:",
		"ACME key attacker's ACME, with its account", "ACME key unused",
		"1 unused link\n", "1 open order\n", "recovery codes\n",
	} {
		if !strings.Contains(m.Text, want) {
			t.Errorf("the message to %s does not say %q:\n%s", o.name, want, m.Text)
		}
	}
	if strings.Contains(m.Text, "authenticator app attacker's app") == otpKept {
		t.Errorf("the message to %s, with authenticators kept %v:\n%s", o.name, otpKept, m.Text)
	}
}

// TestRecoveryInvalidatesEverything recovers in every way after a laptop was stolen
// and used.
func TestRecoveryInvalidatesEverything(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	nextCode := regexp.MustCompile(`name="code" value="([^"]+)"`)
	links, err := people.Links(t.Context(), rig.db, rig.ca)
	if err != nil {
		t.Fatal(err)
	}
	mailed := func(name string) string { return codeIn(t, rig.mail.TakeAbout(t, name+"@example.com", "/enrol#")) }
	for name, way := range map[string]struct {
		keep bool
		back func(o *owner) string // returns the code to enrol with
	}{
		"code": {false, func(o *owner) string {
			return nextCode.FindStringSubmatch(rig.newVisitor(t).post("/recover", "who", o.name, "recovery",
				o.codes[0]).body)[1]
		}},
		"code-kept": {true, func(o *owner) string {
			return nextCode.FindStringSubmatch(rig.newVisitor(t).post("/recover", "who", o.name, "recovery",
				o.codes[0], "keep", "1").body)[1]
		}},
		"admin": {false, func(o *owner) string {
			boss.post("/admin/people/"+o.name+"/recover").says(t, 303, "")
			return mailed(o.name)
		}},
		"admin-kept": {true, func(o *owner) string {
			boss.post("/admin/people/"+o.name+"/recover", "keep", "1").says(t, 303, "")
			return mailed(o.name)
		}},
		"command": {false, func(o *owner) string {
			if _, _, err := rig.people().Recover(t.Context(), o.name, false); err != nil {
				t.Fatal(err)
			}
			rig.Flush()
			return mailed(o.name)
		}},
		"link": {false, func(o *owner) string {
			who, err := rig.db.People().Person(t.Context(), o.name)
			if err == nil {
				_, err = links.Recover(t.Context(), postern.Actor{}, who)
			}
			if err != nil {
				t.Fatal(err)
			}
			rig.Flush()
			return mailed(o.name)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t, rig, name)
			code := way.back(o)
			if name == "link" { // takes effect when it is used
				v, page := rig.newVisitor(t).enrol(code, "new laptop")
				if v == nil {
					t.Fatal(page.main())
				}
				page.says(t, 200, "Revoked or disabled just now")
				o.isRecovered(t, rig, way.keep)
				v.get("/").says(t, 200, "Hello "+name)
				return
			}
			o.isRecovered(t, rig, way.keep)
			v, page := rig.newVisitor(t).enrol(code, "new laptop")
			if v == nil {
				t.Fatal(page.main())
			}
			if n := len(recoveryRE.FindAllString(page.body, -1)); n != 10 {
				t.Errorf("%d new recovery codes", n)
			}
			v.get("/events").says(t, 200, "disabled: ")

			// They enable their own keys again.
			keys, _ := rig.db.ACME().ExternalKeys(t.Context(), name)
			for _, k := range keys {
				v.post("/keys/acme/status", "id", k.ID, "do", "enable").says(t, 303, "")
			}
			if a, err := rig.db.ACME().Account(t.Context(), o.account); err != nil || a.Status != "valid" {
				t.Errorf("after it was enabled again, the ACME account is %s: %v", a.Status, err)
			}
		})
	}
}

// TestARequestBegunBeforeARecoveryIsRefused keeps requests open during a recovery and
// ends them after it.
func TestARequestBegunBeforeARecoveryIsRefused(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	token := csrfRE.FindStringSubmatch(dan.get("/certificates/new").body)[1]
	_, csr := clientCSR(t)
	form := url.Values{"csrf": {token}, "label": {"attacker's"}, "csr": {string(csr)}}.Encode()
	type result struct {
		status int
		err    error
	}
	results := make(chan result)
	paths := []string{"/certificates/new", "/certificates/link", "/keys/acme", "/certificates/" + dan.serial +
		"/renew", "/recovery"}
	var bodies []*io.PipeWriter
	for _, path := range paths {
		body, w := io.Pipe()
		bodies = append(bodies, w)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rig.url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		go func() {
			resp, err := dan.Do(req)
			if err != nil {
				results <- result{err: err}
				return
			}
			resp.Body.Close()
			results <- result{status: resp.StatusCode}
		}()
		if _, err := io.WriteString(w, form[:20]); err != nil {
			t.Fatal(err)
		}
	}
	who, err := rig.db.People().Person(t.Context(), "dan")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := rig.Links.RecoverNow(t.Context(), postern.Actor{}, who,
		postern.Event{Kind: postern.EventPersonRecovered, Person: "dan"}, false); err != nil {
		t.Fatal(err)
	}
	for _, w := range bodies {
		if _, err := io.WriteString(w, form[20:]); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	for range paths {
		if r := <-results; r.err != nil || r.status != 403 {
			t.Errorf("a request that was begun before: %+v", r)
		}
	}
}

// TestRecoveredCredentialsGrantNothing does everything that grants access with the
// credentials of before a recovery: before it, and after it.
func TestRecoveredCredentialsGrantNothing(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	who, _ := rig.db.People().Person(t.Context(), "dan")
	s, keys := rig.db.Portal(), rig.db.OTP()
	app := otp.NewOATH(postern.TOTP, "dan", "app")
	if err := keys.AddOATH(t.Context(), postern.Actor{}, app); err != nil {
		t.Fatal(err)
	}
	external := acme.NewExternalKey("dan", "old", time.Now())
	if err := rig.db.ACME().AddExternalKey(t.Context(), postern.Actor{}, external,
		acme.KeyEvent("dan", external.ID, "", postern.ACMEKeyMade)); err != nil {
		t.Fatal(err)
	}
	loose := func() string {
		id := otp.NewPublicID()
		if err := keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{{PublicID: id, Last: otp.Never}},
			false); err != nil {
			t.Fatal(err)
		}
		return id
	}
	hash := func() (h [32]byte) { rand.Read(h[:]); return h }
	e := postern.Event{Kind: postern.EventPortalCodes, Person: "dan"}
	ctx := t.Context()
	ways := map[string]func(by postern.Actor) error{
		"device": func(by postern.Actor) error {
			_, csr := clientCSR(t)
			_, err := rig.ca.IssueCSR(ctx, csr, ca.SignRequest{Profile: ca.ProfileClient, Person: "dan", By: by})
			return err
		},
		"server": func(by postern.Actor) error {
			_, err := rig.ca.IssueServer(ctx, ca.ServerRequest{Names: []string{"www.example"}, By: by})
			return err
		},
		"SSH certificate": func(by postern.Actor) error {
			_, err := rig.ca.SignSSHUser(ctx, ca.SSHUserRequest{Person: "dan", Key: sshKey(t), By: by})
			return err
		},
		"link": func(by postern.Actor) error { _, err := rig.Links.Device(ctx, by, who); return err },
		"app":  func(by postern.Actor) error { return keys.AddOATH(ctx, by, otp.NewOATH(postern.TOTP, "dan", "new")) },
		"app enabled": func(by postern.Actor) error {
			return keys.SetOATHStatus(ctx, by, postern.TOTP, app.ID, postern.CredentialActive)
		},
		"key in hand": func(by postern.Actor) error { return keys.ClaimKey(ctx, by, loose(), "dan", "blue") },
		"key from afar": func(by postern.Actor) error {
			return keys.AddKeys(ctx, by, []*otp.Key{{PublicID: otp.NewPublicID(), Person: "dan", Last: otp.Never}},
				false)
		},
		"key in panel": func(by postern.Actor) error {
			return s.SetCredentialStatus(ctx, by, postern.TOTP, app.ID, postern.CredentialActive, e)
		},
		"codes": func(by postern.Actor) error {
			return s.PutRecoveryCodes(ctx, by, "dan", []portal.RecoveryCode{{ID: rand.Text(), Hash: hash()}},
				time.Now(), e)
		},
		"backup codes": func(by postern.Actor) error {
			return keys.SetBackupCodes(ctx, by, "dan", [][32]byte{hash()})
		},
		"ACME key": func(by postern.Actor) error {
			return rig.db.ACME().AddExternalKey(ctx, by, acme.NewExternalKey("dan", "", time.Now()), e)
		},
		"ACME key again": func(by postern.Actor) error {
			return rig.db.ACME().EnableExternalKey(ctx, by, "dan", external.ID, e)
		},
		"person": func(by postern.Actor) error {
			return s.AddPerson(ctx, by, postern.Person{Name: strings.ToLower(rand.Text())}, e)
		},
		"names of others": func(by postern.Actor) error {
			return s.PutAllowed(ctx, by, portal.Allowed{Pattern: "*." + strings.ToLower(rand.Text()), Person: "dan"},
				e)
		},
	}
	actor := func(kind postern.CredentialKind, id string) postern.Actor {
		return postern.Actor{Person: "dan", Credential: postern.Link{Kind: string(kind), ID: id}, Address: "192.0.2.7"}
	}
	shown := map[string]postern.Actor{
		"a certificate": actor(postern.X509Certificate, dan.serial),
		"a code":        actor(postern.TOTP, app.ID),
	}
	for name, way := range ways {
		for with, by := range shown {
			if err := way(by); err != nil {
				t.Errorf("%s, with %s: %v", name, with, err)
			}
		}
	}
	events, err := rig.Timeline.EventsOf(t.Context(), "dan", 1)
	if err != nil || events[0].Address != "192.0.2.7" {
		t.Errorf("the timeline says: %+v, %v", events, err)
	}
	if _, _, err := rig.Links.RecoverNow(t.Context(), postern.Actor{}, who,
		postern.Event{Kind: postern.EventPersonRecovered, Person: "dan"}, false); err != nil {
		t.Fatal(err)
	}
	shown["a certificate that never was"] = actor(postern.X509Certificate, "4711")
	for name, way := range ways {
		for with, by := range shown {
			if err := way(by); postern.CodeOf(err) != postern.Denied ||
				!strings.Contains(fmt.Sprint(err), "not valid any more") {
				t.Errorf("%s, with %s from before: %v", name, with, err)
			}
		}
	}
}

// sshKey makes an SSH key.
func sshKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	_, line, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestAnEnrolmentIsOneTransaction has each step of the transaction fail in turn: the
// link stays valid, and nothing else is written.
func TestAnEnrolmentIsOneTransaction(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	links, _ := people.Links(t.Context(), rig.db, rig.ca)
	who, _ := rig.db.People().Person(t.Context(), "dan")
	made, err := links.Recover(t.Context(), postern.Actor{}, who)
	if err != nil {
		t.Fatal(err)
	}
	s := rig.newVisitor(t)
	for _, table := range []string{"ca_certificates", "credentials", "portal_codes", "portal_mail", "log_events"} {
		refuse, take := "CREATE TRIGGER refuse BEFORE INSERT ON "+table+
			" BEGIN SELECT RAISE(ABORT, 'constraint'); END", "DROP TRIGGER refuse"
		if rig.db.Shared() { // PostgreSQL
			refuse, take = "ALTER TABLE "+table+" ADD CONSTRAINT refuse CHECK (false) NOT VALID",
				"ALTER TABLE "+table+" DROP CONSTRAINT refuse"
		}
		rig.exec(t, refuse)
		if v, a := s.enrol(made.Code, "new"); v != nil || a.StatusCode < 400 ||
			strings.Contains(a.body, "constraint") {
			t.Errorf("%s refuses, and the answer is %d: %s", table, a.StatusCode, a.main())
		}
		rig.exec(t, take)
		dan.get("/").says(t, 200, "Hello dan") // nothing was revoked
	}
	v, a := s.enrol(made.Code, "new")
	if v == nil {
		t.Fatalf("the link was lost: %s", a.main())
	}
	dan.get("/certificates").says(t, 403, "needs your certificate")
	certs, err := rig.Authority.CertificatesOf(t.Context(), "dan")
	if err != nil || len(certs) != 2 {
		t.Errorf("%d certificates: %v", len(certs), err)
	}
}

// exec runs an SQL statement.
func (rig *portalRig) exec(t *testing.T, sql string) {
	t.Helper()
	err := rig.db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, sql)
		return err
	})
	if err != nil {
		t.Fatal(sql, err)
	}
}

func TestRevocationVoidsLinks(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	key, csr := clientCSR(t)
	phone := rig.with(t, key, dan.post("/certificates/new", "label", "phone", "csr", string(csr)).body)
	code := codeFieldRE.FindStringSubmatch(phone.post("/certificates/link").body)[1]
	a := dan.post("/certificates/"+phone.serial+"/revoke", "reason", "lost")
	a.says(t, 303, "")
	dan.get(a.Header.Get("Location")).says(t, 200, "disable those that are not yours")
	if v, a := rig.newVisitor(t).enrol(code, "again"); v != nil {
		t.Errorf("the link of a lost phone is still valid: %s", a.main())
	}
}

// TestWrongCodesDoNotLockAPersonOut tries wrong codes from many addresses.
func TestWrongCodesDoNotLockAPersonOut(t *testing.T) {
	rig := newPortalRig(t, nil)
	_, codes := rig.withCodes(t, "dan")
	for i := range 15 {
		rig.visitorAt(t, 2+i).post("/recover", "who", "dan", "recovery", "aaaa-aaaa-aaaa-aaaa").says(t, 403,
			"or the code is wrong")
	}
	s := rig.visitorAt(t, 99)
	for range 20 {
		s.post("/recover", "who", "dan", "recovery", "aaaa-aaaa-aaaa-aaaa").says(t, 403, "or the code is wrong")
	}
	s.post("/recover", "who", "dan", "recovery", codes[0]).says(t, 429, "too many attempts")
	rig.visitorAt(t, 100).post("/recover", "who", "dan", "recovery", codes[0]).says(t, 200, "The code is accepted")
}
