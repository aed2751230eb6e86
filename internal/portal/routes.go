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
	public("GET /{$}", p.home)
	public("GET /enrol", p.enrolPage)
	public("POST /enrol/check", p.enrolCheck)
	public("POST /enrol", p.enrol)
	public("GET /signup", p.signUpPage)
	public("POST /signup", p.signUp)
	public("GET /recover", p.recoverPage)
	public("POST /recover", p.recover)
	public("POST /recover/mail", p.recoverByMail)
	public("GET /passkey", p.passkeyPage)
	public("POST /passkey/begin", p.beginPasskeyLink)
	public("POST /passkey/link", p.passkeyLink)
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
	person("POST /keys/ssh", p.issueSSH)
	person("POST /keys/ssh/revoke", p.revokeSSH)
	person("GET /passkeys", p.passkeys)
	person("POST /passkeys", p.changePasskey)
	person("POST /passkeys/begin", p.beginPasskey)
	person("POST /passkeys/add", p.addPasskey)
	person("GET /events", p.events)

	p.adminRoutes(admin)

	return secured(http.NewCrossOriginProtection().Handler(mux))
}

// adminRoutes are the administrators' pages.
func (p *Portal) adminRoutes(admin func(pattern string, h handler)) {
	admin("GET /admin/timeline", p.timelinePage)
	admin("GET /admin/timeline/live", p.timelineLive)
	admin("GET /admin/timeline/{index}", p.entryPage)
	admin("GET /admin/timeline/{index}/proof", p.entryProof)
	admin("GET /admin", p.nowPage)
	admin("GET /admin/people", p.people)
	admin("POST /admin/people", p.invite)
	admin("GET /admin/people/{name}", p.personPage)
	admin("POST /admin/people/{name}/{do}", p.personDo)
	admin("GET /admin/hosts", p.hosts)
	admin("POST /admin/hosts", p.inviteHost)
	admin("GET /admin/hosts/{name}", p.hostPage)
	admin("POST /admin/hosts/{name}/{do}", p.hostDo)
	admin("GET /admin/roots", p.roots)
	admin("GET /admin/names", p.names)
	admin("POST /admin/names", p.allowNames)
	admin("POST /admin/names/drop", p.dropNames)
	admin("POST /admin/names/refuse", p.refuseName)
}

// public answers all visitors. A valid certificate still identifies the person.
func (p *Portal) public(h handler) http.Handler { return p.handler(h, false) }

// person answers active people only. Other visitors are shown how to sign in.
func (p *Portal) person(h handler) http.Handler { return p.handler(h, true) }

// handler reads the form before it identifies the person. Otherwise a request that
// was begun with a valid certificate could be finished long after its revocation.
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
			p.unauthenticated(r, http.StatusForbidden)
			return
		case formErr != nil:
			err = formErr
		case r.Method == http.MethodPost && !p.ownForm(r):
			err = postern.Errorf(postern.Denied, "This form is from another sign-in.").
				WithHint("Go back, reload the page, and send it again.")
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

// unknownNow answers while it is not known whether a person's certificate is valid. The
// server logs why.
var unknownNow = &formError{code: postern.Unavailable, fields: map[string]string{
	"": "Whether your certificate is valid cannot be checked at the moment. Try again in a minute.",
}}

// identify sets the person of a request. It sets none if the person is suspended or
// removed, or if the certificate is not valid any more.
func (p *Portal) identify(r *request) error {
	name, serial, ok := p.Identify(r.Request)
	if !ok && p.Unavailable != nil && p.Unavailable(r.Request) {
		return unknownNow
	}
	if !ok || name == "" {
		if p.Suspended != nil {
			r.suspended, _ = p.Suspended(r.Request)
		}
		return nil
	}
	who, err := p.People.Person(r.Context(), name)
	if err == nil {
		var c postern.Credential
		if c, err = p.People.Credential(r.Context(), postern.X509Certificate, serial); err == nil &&
			(c.Person != name || c.Status != postern.CredentialActive) {
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
		if who.Status == postern.PersonSuspended {
			r.suspended = name
		}
		return nil
	}
	r.who, r.serial = who, serial
	r.admin = p.Admin != nil && p.Admin(r.Request)
	return nil
}

// actor returns who sent the request. The store writes what grants access only
// while their certificate is valid.
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

// unauthenticated answers a request without a valid certificate: it shows how to
// sign in, or that the person is suspended. It closes the connection, so that the
// browser is asked for a certificate again at the next request.
func (p *Portal) unauthenticated(r *request, status int) {
	r.w.Header().Set("Connection", "close")
	if wantsJSON(r) {
		p.fail(r, postern.Errorf(postern.Denied, "This needs your certificate."))
		return
	}
	if r.suspended != "" {
		p.explainSuspension(r)
		return
	}
	p.render(r, status, "welcome", page{Title: p.Name, Nav: "home", Data: map[string]any{
		"SignUp": len(p.SignUp) > 0, "Passkeys": p.Passkeys != nil, "Lost": status == http.StatusForbidden,
	}})
}

// explainSuspension tells a suspended person who can resume them.
func (p *Portal) explainSuspension(r *request) {
	directory, err := p.People.SuspendedBy(r.Context(), r.suspended)
	if err != nil {
		p.fail(r, err)
		return
	}
	by, ask := "an administrator", "an administrator to resume you"
	if directory != "" {
		by, ask = "the directory "+directory, "an administrator of the directory to enable your account there"
	}
	p.render(r, http.StatusForbidden, "error", page{
		Title: "You are suspended", Nav: "home",
		Data: "Your certificate is valid, but " + by + " has suspended you: none of your credentials is accepted. " +
			"Ask " + ask + ".",
	})
}
