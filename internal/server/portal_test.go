package server

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

func TestEnrolmentWithoutJavaScript(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.person(t, "dan")
	made, err := rig.Links.Invite(t.Context(), postern.Actor{}, dan)
	if err != nil || !made.Sent {
		t.Fatal(made, err)
	}
	rig.Flush()
	m := rig.mail.Take(t, "dan@example.com")
	if !strings.Contains(m.Text, rig.url+"/enrol#") {
		t.Errorf("no link in:\n%s", m.Text)
	}
	code := codeIn(t, m)
	s := rig.newVisitor(t)
	for range 3 { // as mail scanners do
		s.get("/enrol").says(t, 200, "The code of your link")
	}
	s.post("/enrol/check", "code", code).says(t, 200, "dan@example.com")
	v, page := s.enrol(strings.ToUpper(code), "laptop")
	page.says(t, 200, "Your recovery codes")
	v.get("/").says(t, 200, "Hello dan")
	v.get("/certificates").says(t, 200, "this device")
	v.get("/events").says(t, 200, "Certificate enrolled")
	s.get("/certificates").says(t, 403, "needs your certificate")
	_, again := s.enrol(code, "laptop")
	again.says(t, 403, "was used before")
}

func TestSignUpDoesNotRevealWhoIsKnown(t *testing.T) {
	rig := newPortalRig(t, func(c *portal.Config) { c.SignUp = []string{"example.com"} })
	rig.enrolled(t, "known")
	s := rig.newVisitor(t)
	known, unknown := s.post("/signup", "email", "known@example.com"), s.post("/signup", "email", "newer@example.com")
	if a, b := strings.ReplaceAll(known.body, "known@", "x@"),
		strings.ReplaceAll(unknown.body, "newer@", "x@"); a != b || known.StatusCode != unknown.StatusCode {
		t.Errorf("the answers differ:\n%s\n%s", a, b)
	}
	if m := rig.mail.TakeAbout(t, "known@example.com", "already, with the name known"); linkRE.MatchString(m.Text) {
		t.Errorf("a person who exists was sent a link:\n%s", m.Text)
	}
	code := codeIn(t, rig.mail.Take(t, "newer@example.com"))
	s.post("/signup", "email", "x@elsewhere.org").says(t, 400, "Use an address at example.com")
	s.post("/signup", "email", "x@example.com\r\nBcc: y@example.com").says(t, 400, "not an e-mail address")
	_, taken := s.enrol(code, "laptop", "person", "known")
	taken.says(t, 400, "That name is taken")
	v, _ := s.enrol(code, "laptop", "person", "newer")
	v.get("/").says(t, 200, "Hello newer")
}

// TestSigningUpGrantsNoAccount has a person sign up with the name of an account that
// hosts may have.
func TestSigningUpGrantsNoAccount(t *testing.T) {
	rig := newPortalRig(t, func(c *portal.Config) { c.SignUp = []string{"example.com"} })
	boss := rig.enrolled(t, "boss", "admin")
	s := rig.newVisitor(t)
	s.post("/signup", "email", "mallory@example.com").says(t, 200, "is being sent")
	code := codeIn(t, rig.mail.Take(t, "mallory@example.com"))
	_, refused := s.enrol(code, "laptop", "person", "www-data")
	refused.says(t, 400, "reserved for the system")
	v, _ := s.enrol(code, "laptop", "person", "deploy")
	_, line, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	v.post("/keys/ssh", "public_key", string(line)).says(t, 403, "no administrator has approved you")
	boss.get("/admin/people/deploy").says(t, 200, "This person signed up")
	v.post("/admin/people/deploy/approve").says(t, 403, "for administrators")
	boss.post("/admin/people/deploy/approve").says(t, 303, "")
	v.post("/keys/ssh", "public_key", string(line)).says(t, 200, "-cert.pub")
}

func TestAdministratorChangesAPerson(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan", "dev")
	rig.person(t, "eve")
	who, _ := rig.db.People().Person(t.Context(), "dan")
	made, err := rig.Links.Invite(t.Context(), postern.Actor{}, who)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/admin/people/dan/change"
	dan.post(path, "groups", "admin").says(t, 403, "for administrators")
	boss.post(path, "csrf", "0123", "groups", "admin").says(t, 403, "another sign-in")
	boss.get("/admin/people/dan").says(t, 200, `name="groups" type="text" value="dev"`)
	boss.post(path, "email", "nonsense").says(t, 400, "not an e-mail address")
	boss.post(path, "email", "eve@example.com").says(t, 409, "The address eve@example.com is that of eve already.")
	boss.post(path, "email", "dan@example.com", "groups", "no/group").says(t, 400, "cannot be a group")
	boss.post(path, "email", "dan@example.com", "full_name", "Dan \u202egnimmoc").says(t, 400,
		"other visible characters")
	a := boss.post(path, "email", "Dan@Example.org", "full_name", "Dan D.", "groups", "ops, admin")
	a.says(t, 303, "")
	boss.get(a.Header.Get("Location")).says(t, 200,
		"e-mail address dan@example.com changed to dan@example.org, full name Dan D. added, joined the group admin, "+
			"joined the group ops, left the group dev")
	if m := rig.mail.TakeAbout(t, "dan@example.com", "was changed"); !strings.Contains(m.Text,
		"the administrator boss changed") {
		t.Errorf("the message to the old address is:\n%s", m.Text)
	}
	if v, _ := rig.newVisitor(t).enrol(made.Code, "again"); v != nil {
		t.Error("a link that was sent to the old address is still valid")
	}
	dan.get("/admin/people").says(t, 200, "Invite a person")
	rig.addPeople(t, 100)
	dan.get("/admin/people").says(t, 200, `<a href="/admin/people?after=p096">More people</a>`)
	dan.get("/admin/people?after=p096").says(t, 200, "<strong>p099</strong>")
}

// addPeople adds so many people, p000 and so on.
func (r *portalRig) addPeople(t *testing.T, n int) {
	t.Helper()
	err := r.db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		for i := range n {
			if err := tx.AddPerson(ctx, postern.Person{Name: fmt.Sprintf("p%03d", i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinkIsSpentOnce(t *testing.T) {
	rig := newPortalRig(t, nil)
	made, err := rig.Links.Invite(t.Context(), postern.Actor{}, rig.person(t, "dan"))
	if err != nil {
		t.Fatal(err)
	}
	var got sync.Map
	var g sync.WaitGroup
	for i := range 8 {
		s := rig.newVisitor(t)
		g.Go(func() {
			if v, _ := s.enrol(made.Code, "laptop"); v != nil {
				got.Store(i, v.serial)
			}
		})
	}
	g.Wait()
	n := 0
	got.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 8 browsers got a certificate for one link", n)
	}
	certs, err := rig.Authority.CertificatesOf(t.Context(), "dan")
	if err != nil || len(certs) != 1 {
		t.Errorf("%d certificates were issued: %v", len(certs), err)
	}
}

// TestLostAnswerIsRepeated uses a link again with the same certificate request, as a
// browser does after its connection broke, and as an attacker might.
func TestLostAnswerIsRepeated(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	made, err := rig.Links.Invite(t.Context(), postern.Actor{}, rig.person(t, "dan"))
	if err != nil {
		t.Fatal(err)
	}
	key, csr := clientCSR(t)
	asks := func(code string, csr []byte) answer {
		return rig.newVisitor(t).post("/enrol", "code", code, "label", "laptop", "csr", string(csr))
	}
	answers := make([]answer, 8) // at once, as impatient browsers do
	var g sync.WaitGroup
	for i := range answers {
		g.Go(func() { answers[i] = asks(made.Code, csr) })
	}
	g.Wait()
	serials, codes := map[string]int{}, 0
	for _, a := range answers {
		a.says(t, 200, "BEGIN CERTIFICATE")
		serials[rig.with(t, key, a.body).serial]++
		codes += len(recoveryRE.FindAllString(a.body, -1))
	}
	certs, err := rig.Authority.CertificatesOf(t.Context(), "dan")
	if err != nil || len(certs) != 1 || len(serials) != 1 || codes != 10 {
		t.Fatalf("%d certificates, %v, and %d recovery codes were shown: %v", len(certs), serials, codes, err)
	}
	dan := rig.with(t, key, answers[0].body)
	again := asks(made.Code, csrOf(t, key, "another.request")) // of the same key
	again.says(t, 200, "is shown again")
	if got := rig.with(t, key, again.body).serial; got != dan.serial || recoveryRE.MatchString(again.body) {
		t.Errorf("the repeated answer has %s, not %s, in\n%s", got, dan.serial, again.main())
	}

	// With another key, link or person there is no certificate.
	const no = "was used before"
	_, other := clientCSR(t)
	asks(made.Code, other).says(t, 403, no)
	asks(strings.Repeat("abcd", 8), csr).says(t, 403, no)
	rig.newVisitor(t).post("/enrol/check", "code", made.Code).says(t, 403, no)
	eve, err := rig.Links.Invite(t.Context(), postern.Actor{}, rig.person(t, "eve"))
	if err != nil {
		t.Fatal(err)
	}
	asks(eve.Code, csr).says(t, 400, "in another certificate already")
	boss.post("/admin/people/dan/suspend").says(t, 303, "")
	asks(made.Code, csr).says(t, 403, no)
	boss.post("/admin/people/dan/resume").says(t, 303, "")
	asks(made.Code, csr).says(t, 200, "is shown again")
	dan.post("/certificates/"+dan.serial+"/revoke", "reason", "lost").says(t, 303, "")
	asks(made.Code, csr).says(t, 403, no)
}

// TestExpiredLinkRepeatsNothing lets a link expire after it was used.
func TestExpiredLinkRepeatsNothing(t *testing.T) {
	rig := newPortalRig(t, nil)
	made, err := rig.Links.Invite(t.Context(), postern.Actor{}, rig.person(t, "dan"))
	if err != nil {
		t.Fatal(err)
	}
	key, csr := clientCSR(t)
	s := rig.newVisitor(t)
	s.post("/enrol", "code", made.Code, "csr", string(csr)).says(t, 200, "BEGIN CERTIFICATE")
	rig.exec(t, fmt.Sprintf("UPDATE portal_links SET expires = %d", time.Now().UnixMicro()))
	s.post("/enrol", "code", made.Code, "csr", string(csrOf(t, key))).says(t, 403, "has expired")
}

// TestLostAnswerIsRepeatedToAPerson does the same for a person with a certificate.
func TestLostAnswerIsRepeatedToAPerson(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan, eve := rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	for _, path := range []string{"/certificates/new", "/certificates/" + dan.serial + "/renew"} {
		key, csr := clientCSR(t)
		form := []string{"label", "laptop", "csr", string(csr)}
		serial := func(v *visitor) string {
			a := v.post(path, form...)
			if to := a.Header.Get("Location"); to != "" {
				a = v.get(strings.Split(to, "?")[0] + "/pem")
			}
			a.says(t, 200, "BEGIN CERTIFICATE")
			return rig.with(t, key, a.body).serial
		}
		if first, again := serial(dan), serial(dan); first != again {
			t.Errorf("%s: two certificates for one key, %s and %s", path, first, again)
		}
		eve.post("/certificates/new", form...).says(t, 400, "in another certificate already")
		dan.post("/certificates/new", "label", "phone", "csr", string(csr)).says(t, 400,
			"in another certificate already")
	}
}

func TestLinksCannotBeGuessed(t *testing.T) {
	rig := newPortalRig(t, nil)
	s := rig.newVisitor(t)
	guess := strings.Repeat("abcd", 8)
	status := 0
	for range 70 {
		status = s.post("/enrol/check", "code", guess).StatusCode
	}
	if status != 429 {
		t.Errorf("after 70 guesses the answer is %d", status)
	}
}

var recoveryRE = regexp.MustCompile(`<li><code>([a-z2-7-]{19})</code></li>`)

func TestRecoveryCode(t *testing.T) {
	rig := newPortalRig(t, nil)
	old, codes := rig.withCodes(t, "dan")
	if len(codes) != 10 {
		t.Fatalf("%d recovery codes", len(codes))
	}
	s := rig.newVisitor(t)
	unknown := s.post("/recover", "who", "nobody", "recovery", codes[0])
	wrong := s.post("/recover", "who", "dan", "recovery", "aaaa-aaaa-aaaa-aaaa")
	unknown.says(t, 403, "or the code is wrong")
	if got := strings.ReplaceAll(strings.ReplaceAll(unknown.body, `"nobody"`, `"dan"`), codes[0],
		"aaaa-aaaa-aaaa-aaaa"); got != wrong.body {
		t.Errorf("the answer reveals whether a person is known:\n%s\n%s", got, wrong.body)
	}
	right := s.post("/recover", "who", "dan@example.com", "recovery", codes[0])
	right.says(t, 200, "certificate of the device laptop")
	old.get("/").says(t, 200, "I have a certificate") // the page for visitors without one: revoked at once
	if m := rig.mail.TakeAbout(t, "dan@example.com", "was recovered"); !strings.Contains(m.Text,
		"certificate of the device laptop") {
		t.Errorf("the message to dan is:\n%s", m.Text)
	}
	code := regexp.MustCompile(`name="code" value="([^"]+)"`).FindStringSubmatch(right.body)
	v, _ := s.enrol(code[1], "new laptop")
	v.get("/").says(t, 200, "Hello dan")
	s.post("/recover", "who", "dan", "recovery", codes[0]).says(t, 403, "used before")
	v.get("/events").says(t, 200, "one of your recovery codes")
}

func TestAdministratorRecovers(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan")
	dan.get("/admin").says(t, 403, "for administrators")
	dan.post("/admin/people/boss/suspend").says(t, 403, "for administrators")
	if a := boss.post("/admin/people/dan/recover"); a.StatusCode != 303 {
		t.Fatal(a.StatusCode, a.body)
	}
	dan.get("/certificates").says(t, 403, "needs your certificate")
	notice, link := rig.mail.TakeAbout(t, "dan@example.com", "was recovered"),
		rig.mail.TakeAbout(t, "dan@example.com", "/enrol#")
	if !strings.Contains(notice.Text, "administrator boss") {
		t.Errorf("the message to dan is:\n%s", notice.Text)
	}
	v, _ := rig.newVisitor(t).enrol(codeIn(t, link), "laptop")
	v.get("/").says(t, 200, "Hello dan")
}

func TestSuspendedPersonGetsNothing(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan")
	who, _ := rig.db.People().Person(t.Context(), "dan")
	made, err := rig.Links.Invite(t.Context(), postern.Actor{}, who)
	if err != nil {
		t.Fatal(err)
	}
	boss.post("/admin/people/dan/suspend").says(t, 303, "")
	dan.get("/certificates").says(t, 403, "an administrator has suspended you")
	dan.get("/").says(t, 403, "an administrator has suspended you")
	_, a := rig.newVisitor(t).enrol(made.Code, "laptop")
	a.says(t, 403, "not valid")
	boss.post("/admin/people/dan/invite").says(t, 400, "Resume them first")
	boss.post("/admin/people/dan/resume").says(t, 303, "")
	dan.get("/").says(t, 200, "Hello dan")
}

func TestRevokeAndRenewOwnDevices(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan, eve := rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	eve.get("/certificates/"+dan.serial).says(t, 404, "no such certificate")
	eve.post("/certificates/"+dan.serial+"/revoke", "reason", "lost").says(t, 404, "no such certificate")
	eve.post("/certificates/"+dan.serial+"/renew").says(t, 404, "no such certificate")
	key, csr := clientCSR(t)
	page := dan.post("/certificates/new", "label", "phone", "csr", string(csr))
	page.says(t, 200, "phone")
	phone := rig.with(t, key, page.body)
	phone.get("/certificates").says(t, 200, "laptop")
	eve.post("/certificates/new", "label", "copy", "csr", string(csr)).says(t, 400, "in another certificate already")
	if a := dan.post("/certificates/" + dan.serial + "/renew"); a.StatusCode != 303 ||
		!strings.Contains(a.Header.Get("Location"), "done=renewed") {
		t.Errorf("renewal: %d %s", a.StatusCode, a.body)
	}
	phone.post("/certificates/"+dan.serial+"/revoke", "reason", "lost").says(t, 303, "")
	dan.get("/certificates").says(t, 403, "needs your certificate")
	phone.post("/certificates/"+dan.serial+"/renew").says(t, 403, "cannot be renewed")
	if m := rig.mail.TakeAbout(t, "dan@example.com", "was revoked"); !strings.Contains(m.Text, "laptop") {
		t.Errorf("the message to dan is:\n%s", m.Text)
	}
	if e, err := rig.Timeline.EventsOf(t.Context(), "dan", 1); err != nil || e[0].Kind != postern.EventCertRevoked {
		t.Error(e, err)
	}
}

func TestCommandsMakeLinks(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.enrolled(t, "dan")
	links, err := people.Links(t.Context(), rig.db, rig.ca)
	if err != nil {
		t.Fatal(err)
	}
	if links.URL != rig.url || !links.Mails {
		t.Errorf("the portal has stored %s, mails %v", links.URL, links.Mails)
	}
	rig.person(t, "eve")
	if made, err := rig.people().Invite(t.Context(), "eve"); err != nil || !made.Sent ||
		made.Email != "eve@example.com" {
		t.Errorf("%v: %+v", err, made)
	}
	rig.Flush()
	v, _ := rig.newVisitor(t).enrol(codeIn(t, rig.mail.Take(t, "eve@example.com")), "laptop")
	v.get("/").says(t, 200, "Hello eve")
	dan.get("/").says(t, 200, "Hello dan")
}

// TestLinksSayWhetherTheyWereSent makes a link with mail and one without: only the
// first is recorded as sent.
func TestLinksSayWhetherTheyWereSent(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan := rig.person(t, "dan")
	for _, mails := range []bool{true, false} {
		rig.Links.Mails = mails
		made, err := rig.Links.Invite(t.Context(), postern.Actor{}, dan)
		must(t, err)
		list, err := rig.db.Timeline().Events(t.Context(),
			timeline.Filter{Kind: postern.EventPortalLink, Last: true, Limit: 1})
		must(t, err)
		if sent := list[0].Details["sent"] == "dan@example.com"; made.Sent != mails || sent != mails {
			t.Errorf("with mail %v: sent %v, recorded as sent %v", mails, made.Sent, sent)
		}
	}
}

// TestInternalErrorsAreNotShown sends forms while the database is unavailable.
func TestInternalErrorsAreNotShown(t *testing.T) {
	rig := newPortalRig(t, nil)
	s := rig.newVisitor(t)
	if err := rig.db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, a := range []answer{
		s.post("/enrol/check", "code", "x"),
		s.post("/recover", "who", "dan", "recovery", "aaaa-aaaa-aaaa-aaaa"),
	} {
		a.says(t, 503, "This is not available at the moment.")
		if strings.Contains(a.body, "database") || strings.Contains(a.body, "closed") {
			t.Errorf("the page names the database: %s", a.main())
		}
	}
}

// smallAuthority issues certificates for addresses at example.org only.
type smallAuthority struct{ portal.Authority }

func (smallAuthority) PermitsMail(email string) error {
	if strings.HasSuffix(email, "@example.org") {
		return nil
	}
	return postern.Errorf(postern.Denied, "this authority's root may not vouch for %s",
		email).WithHint("it was made for example.org")
}

// TestNoLinkWithoutACertificate tries every way to a link for an address for which
// the root's name constraints permit no certificate.
func TestNoLinkWithoutACertificate(t *testing.T) {
	rig := newPortalRig(t, func(c *portal.Config) { c.SignUp, c.RecoverByMail = []string{"example.com"}, true })
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan")
	rig.Authority = smallAuthority{rig.Authority}
	rig.Links.Permits = rig.Authority.PermitsMail
	const words = "This authority&#39;s root may not vouch for "
	boss.post("/admin/people", "name", "eve", "email", "eve@example.com").says(t, 403, words+"eve@example.com")
	boss.get("/admin/people/eve").says(t, 404, "")
	boss.post("/admin/people/dan/change", "email", "dan@example.net").says(t, 403, words+"dan@example.net")
	boss.post("/admin/people/dan/invite").says(t, 403, words+"dan@example.com")
	boss.post("/admin/people/dan/recover").says(t, 403, words+"dan@example.com")
	dan.post("/certificates/link").says(t, 403, words+"dan@example.com")
	rig.newVisitor(t).post("/signup", "email", "new@example.com").says(t, 403, words+"new@example.com")
	dan.get("/").says(t, 200, "Hello dan")
	boss.post("/admin/people", "name", "eve", "email", "eve@example.org").says(t, 303, "")
	codeIn(t, rig.mail.Take(t, "eve@example.org"))
}

// TestHostsOnThePages adds a host as an administrator does, and looks after it.
func TestHostsOnThePages(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan")
	dan.get("/admin/hosts").says(t, 403, "for administrators")
	dan.post("/admin/hosts", "name", "hv1").says(t, 403, "for administrators")
	boss.post("/admin/hosts", "name", "no host name").says(t, 400, "cannot be the name of a host")
	boss.post("/admin/hosts", "name", "HV1", "names", "hv1.example.com, 192.0.2.7", "groups", "hv").says(t, 200,
		"| postern join "+rig.url+" --token-file -")
	boss.post("/admin/hosts", "name", "hv1").says(t, 409, "There is a host hv1 already")
	boss.get("/admin/hosts").says(t, 200, "also hv1.example.com, 192.0.2.7")
	boss.post("/admin/hosts/hv1/suspend").says(t, 303, "")
	boss.post("/admin/hosts/hv1/invite").says(t, 403, "suspended")
	boss.post("/admin/hosts/hv1/resume").says(t, 303, "")
	boss.post("/admin/hosts/hv1/invite").says(t, 200, "pjt_")
	dan.post("/admin/hosts/hv1/remove").says(t, 403, "for administrators")
	boss.post("/admin/hosts/hv1/remove").says(t, 303, "")
	boss.get("/admin/hosts").says(t, 200, "None.")
	events, err := rig.db.Timeline().Events(t.Context(), timeline.Filter{Kind: "host"})
	if err != nil || len(events) != 5 || events[0].Person != "boss" || events[0].Object != "hv1" {
		t.Errorf("%+v, %v", events, err)
	}
}
