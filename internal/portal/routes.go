package portal

import (
	"net/http"

	"github.com/postern-project/postern"
)

// handler answers a request; what it returns becomes an error page.
type handler func(r *request) error

func (p *Portal) routes() http.Handler {
	mux := http.NewServeMux()
	public := func(pattern string, h handler) { mux.Handle(pattern, p.public(h)) }
	person := func(pattern string, h handler) { mux.Handle(pattern, p.person(h)) }
	admin := func(pattern string, h handler) { mux.Handle(pattern, p.person(adminOnly(h))) }

	mux.HandleFunc("GET /static/", p.web.serveStatic)
	public("GET /{$}", p.front)
	public("GET /enrol", p.enrolPage)
	public("POST /enrol/check", p.enrolCheck)
	public("POST /enrol", p.enrol)
	public("GET /signup", p.signUpPage)
	public("POST /signup", p.signUp)
	public("GET /recover", p.recoverPage)
	public("POST /recover", p.recover)
	public("POST /recover/mail", p.recoverByMail)
	public("GET /prove", p.provePage)
	public("POST /prove/check", p.proveCheck)
	public("POST /prove", p.prove)
	public("GET /trust", p.trustPage)
	public("GET /import", p.importPage)
	public("GET /root.pem", p.rootPEM)
	public("GET /root.crt", p.rootDER)
	public("GET /root.mobileconfig", p.rootProfile)
	public("/", func(*request) error { return postern.Errorf(postern.NotFound, "There is no such page here.") })

	person("GET /certificates", p.certificates)
	person("GET /certificates/new", p.newDevicePage)
	person("POST /certificates/new", p.newDevice)
	person("POST /certificates/link", p.deviceLink)
	person("GET /certificates/{serial}", p.certificate)
	person("GET /certificates/{serial}/pem", p.certificatePEM)
	person("GET /certificates/{serial}/files", p.certificateFiles)
	person("POST /certificates/{serial}/renew", p.renew)
	person("POST /certificates/{serial}/revoke", p.revoke)
	person("GET /servers", p.servers)
	person("GET /servers/new", p.newOrderPage)
	person("POST /servers/new", p.newOrder)
	person("GET /servers/{id}", p.order)
	person("POST /servers/{id}/mail", p.orderMail)
	person("POST /servers/{id}/check", p.orderCheck)
	person("POST /servers/{id}/ask", p.orderAsk)
	person("POST /servers/{id}/issue", p.orderIssue)
	person("POST /servers/{id}/cancel", p.orderCancel)
	person("GET /recovery", p.recoveryPage)
	person("POST /recovery", p.newRecoveryCodes)
	person("GET /keys", p.keys)
	person("POST /keys", p.keyStatus)
	person("POST /keys/yubikey", p.addYubiKey)
	person("POST /keys/totp", p.newTOTP)
	person("POST /keys/totp/first", p.addTOTP)
	person("POST /keys/acme", p.addACMEKey)
	person("POST /keys/acme/status", p.acmeKeyStatus)
	person("POST /keys/ssh", p.signSSH)
	person("POST /keys/ssh/revoke", p.revokeSSH)
	person("GET /events", p.events)

	admin("GET /admin", p.people)
	admin("POST /admin", p.invite)
	admin("GET /admin/people/{name}", p.personPage)
	admin("POST /admin/people/{name}/{do}", p.personDo)
	admin("GET /admin/names", p.names)
	admin("POST /admin/names", p.allowNames)
	admin("POST /admin/names/drop", p.dropNames)
	admin("POST /admin/names/refuse", p.refuseName)

	return secured(http.NewCrossOriginProtection().Handler(mux))
}

// public answers anybody. Whoever comes with a good certificate is known all
// the same.
func (p *Portal) public(h handler) http.Handler { return p.handler(h, false) }

// person answers a person, active at this moment, and sends everybody else to
// the front page.
func (p *Portal) person(h handler) http.Handler { return p.handler(h, true) }

// handler reads the form before it finds out who asks, so that nobody can begin
// a request while they count and finish it long after.
func (p *Portal) handler(h handler, person bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Request: hr, w: w}
		var formErr error
		if r.Method == http.MethodPost {
			formErr = p.form(r)
		}
		err := p.identify(r)
		switch {
		case err != nil:
		case person && r.who.Name == "":
			p.stranger(r, http.StatusForbidden)
			return
		case formErr != nil:
			err = formErr
		case r.Method == http.MethodPost && !p.ownForm(r):
			err = postern.Errorf(postern.Denied, "This form is from another sign-in.").WithHint("Go back, reload the page, and send it again.")
		default:
			err = h(r)
			if r.Method == http.MethodPost {
				p.wakeMail()
			}
		}
		if err != nil {
			p.fail(r, err)
		}
	})
}

// identify fills in who asks. A person who is suspended or gone, or came with a
// certificate that does not count at this moment, counts as nobody.
func (p *Portal) identify(r *request) error {
	name, serial, ok := p.Identify(r.Request)
	if !ok || name == "" {
		r.suspended = p.Suspended != nil && p.Suspended(r.Request)
		return nil
	}
	who, err := p.People.Person(r.Context(), name)
	if err == nil {
		var c postern.Credential
		if c, err = p.People.Credential(r.Context(), postern.X509Certificate, serial); err == nil && (c.Person != name || c.Status != postern.CredentialActive) {
			return nil
		}
	}
	if postern.CodeOf(err) == postern.NotFound && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if !who.Active() {
		r.suspended = who.Status == postern.PersonSuspended
		return nil
	}
	r.who, r.serial = who, serial
	r.admin = p.Admin != nil && p.Admin(r.Request)
	return nil
}

// actor is who sent the request: what grants access is written only while their
// certificate is valid.
func (p *Portal) actor(r *request) postern.Actor {
	a := postern.Actor{Person: r.who.Name, Address: p.peer(r)}
	if r.serial != "" {
		a.Credential = postern.Link{Kind: string(postern.X509Certificate), ID: r.serial}
	}
	return a
}

func adminOnly(h handler) handler {
	return func(r *request) error {
		if !r.admin {
			return postern.Errorf(postern.Denied, "This page is for administrators.")
		}
		return h(r)
	}
}

// stranger shows the front page to somebody without a certificate, and tells
// somebody who is suspended so. The
// connection is closed, so that a browser which has got one meanwhile is asked
// for it again.
func (p *Portal) stranger(r *request, status int) {
	r.w.Header().Set("Connection", "close")
	if wantsJSON(r) {
		p.fail(r, postern.Errorf(postern.Denied, "This needs your certificate."))
		return
	}
	if r.suspended {
		p.render(r, http.StatusForbidden, "error", page{
			Title: "You are suspended", Nav: "home",
			Data: "Your certificate is good, but an administrator has suspended you: nothing that you hold opens a door at present. Ask them to let you in again.",
		})
		return
	}
	p.render(r, status, "welcome", page{Title: p.Name, Nav: "home", Data: map[string]any{
		"SignUp": len(p.SignUp) > 0, "Lost": status == http.StatusForbidden,
	}})
}
