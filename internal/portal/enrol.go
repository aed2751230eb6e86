package portal

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

const (
	triesPerHour  = 60 // of codes and links, from one address
	mailsPerHour  = 3  // to one address
	askedPerHour  = 20 // messages asked for from one address
	defaultDevice = "First device"
)

// enrolment is what the page of a link shows before it is used.
type enrolment struct {
	Code    string // filled in already: after a recovery code
	Person  string
	Email   string
	Ask     bool // whether the person chooses a name
	Suggest string
	Minimum int      // length of a passphrase
	Off     []string // what a recovery code has just switched off
}

const minPassphrase = 10

func (p *Portal) enrolPage(r *request) error {
	p.render(r, 200, "enrol", page{Title: "Get your certificate", Nav: "enrol", Data: enrolment{Minimum: minPassphrase}})
	return nil
}

// enrolCheck tells the page whose link it holds. It changes nothing.
func (p *Portal) enrolCheck(r *request) error {
	k, err := p.lookLink(r, Enrol, SignUp, Recover)
	if err != nil {
		p.invalid(r, beside("code", err), "enrol", page{Title: "Get your certificate", Data: enrolment{Minimum: minPassphrase}})
		return nil
	}
	e := enrolment{Code: r.PostForm.Get("code"), Person: k.Person, Email: k.Email, Minimum: minPassphrase}
	if k.Purpose == SignUp {
		e.Ask, e.Suggest = true, suggestName(k.Email)
	}
	if wantsJSON(r) {
		writeJSON(r.w, 200, map[string]any{"person": e.Person, "email": e.Email, "ask": e.Ask, "suggest": e.Suggest, "revokes": k.Purpose == Recover})
		return nil
	}
	p.render(r, 200, "enrol", page{Title: "Get your certificate", Nav: "enrol", Data: e})
	return nil
}

func (p *Portal) lookLink(r *request, purposes ...Purpose) (Link, error) {
	if err := p.limit(r.Context(), "link/"+p.from(r), triesPerHour, time.Hour); err != nil {
		return Link{}, err
	}
	return p.Links.look(r.Context(), r.PostForm.Get("code"), purposes...)
}

// suggestName makes a name of an address.
func suggestName(email string) string {
	local, _, _ := strings.Cut(email, "@")
	local = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-' {
			return c
		}
		return -1
	}, local)
	local = strings.TrimLeft(local, "._-")
	return local[:min(len(local), 64)]
}

// enrol spends a link and certifies the key that the page has made.
func (p *Portal) enrol(r *request) error {
	res, err := p.enrolled(r)
	if err != nil {
		if again, ok := p.given(r); ok {
			return p.issued(r, again)
		}
		data := enrolment{Code: r.PostForm.Get("code"), Person: r.PostForm.Get("person"), Ask: r.PostForm.Has("person"), Minimum: minPassphrase}
		p.invalid(r, err, "enrol", page{Title: "Get your certificate", Nav: "enrol", Data: data})
		return nil
	}
	return p.issued(r, res)
}

// issue is what a page gets when a client certificate was made.
type issue struct {
	Certificate Certificate
	Person      postern.Person
	Codes       []string // fresh recovery codes; nil if there are some already
	Off         Off      // what a recovery has switched off with it
	Again       bool     // it was made before, and the answer is given again
}

func (p *Portal) enrolled(r *request) (issue, error) {
	ctx := r.Context()
	k, err := p.lookLink(r, Enrol, SignUp, Recover)
	if err != nil {
		return issue{}, beside("code", err)
	}
	label, req, err := p.clientForm(r)
	if err != nil {
		return issue{}, err
	}
	who, err := p.linkPerson(ctx, k, r.PostForm.Get("person"))
	if err != nil {
		return issue{}, err
	}
	if _, err := p.freshKey(ctx, req, "", ""); err != nil {
		return issue{}, err
	}
	if who.Created.IsZero() {
		if err := p.addSignedUp(r, who); err != nil {
			return issue{}, err
		}
	}
	e := Enrolment{Link: &k.Hash, Purpose: k.Purpose, Label: label}
	if k.Purpose == Recover {
		how := "a mailed link"
		e.Recovery = &Recovery{Event: p.recoveredEvent(r, who.Name, how), Mail: p.Links.recovered(who, how)}
	}
	return p.certify(r, who, e, func(e Enrolment) (Certificate, Enrolled, error) {
		return p.Authority.IssueClient(ctx, p.actor(r), who.Name, label, req, e)
	})
}

// addSignedUp adds a person by their own wish. The link that they came with is
// not spent yet: it stays good for their first certificate.
func (p *Portal) addSignedUp(r *request, who postern.Person) error {
	err := p.People.AddPerson(r.Context(), p.actor(r), who, p.personEvent(r, postern.EventPersonAdded, who.Name))
	if err != nil && postern.CodeOf(err) == postern.Conflict {
		return wrong("person", "That name is taken. Choose another.")
	}
	return err
}

// linkPerson returns whom a link is for; with a SignUp link that is a person
// who does not exist yet.
func (p *Portal) linkPerson(ctx context.Context, k Link, name string) (postern.Person, error) {
	if k.Purpose != SignUp {
		who, err := p.People.Person(ctx, k.Person)
		if err != nil || !who.Active() {
			return who, beside("code", orErr(err, ErrLink))
		}
		return who, nil
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if reservedNames[name] {
		return postern.Person{}, wrong("person", "That name is the system's own: choose another.")
	}
	if !postern.ValidName(name) {
		return postern.Person{}, wrong("person", "Use 1 to 64 lower-case letters, digits, dots, dashes or underscores, beginning with a letter or digit.")
	}
	who, err := p.People.PersonByEmail(ctx, k.Email)
	if postern.CodeOf(err) == postern.NotFound && err != nil {
		return postern.Person{Name: name, Email: k.Email, Groups: []string{postern.SignedUp}, Status: postern.PersonActive}, nil
	}
	if err != nil {
		return who, err
	}
	// The address has got a person since. It is good for a first certificate,
	// never for a further one.
	have, err := p.Authority.CertificatesOf(ctx, who.Name)
	if err == nil && (len(have) > 0 || !who.Active()) {
		err = beside("code", ErrLink)
	}
	return who, err
}

func orErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Enrolment is what goes into the transaction that records a certificate.
type Enrolment struct {
	Person   string
	Link     *[32]byte // hash of the link that it spends; nil: none
	Order    string    // ID of the order that it closes; "": none
	Purpose  Purpose   // for the timeline's line that a device is enrolled; "": no line
	Label    string    // of the device; "" for a server
	Address  string    // who asks from where
	Now      time.Time
	Recovery *Recovery      // done before the certificate is recorded; nil: none
	Codes    []RecoveryCode // for a person who has none left
}

// Enrolled is what came of it.
type Enrolled struct {
	Off   Off
	Codes bool // whether the codes are theirs now
}

// certify issues a certificate to a person, and does what goes with it in the
// transaction that records it: either all of it happens, or nothing.
func (p *Portal) certify(r *request, who postern.Person, e Enrolment, issueOne func(Enrolment) (Certificate, Enrolled, error)) (issue, error) {
	res := issue{Person: who}
	e.Person, e.Address, e.Now = who.Name, p.peer(r), p.now()
	codes, kept := newCodes()
	if e.Purpose != "" {
		e.Codes = kept
	}
	var done Enrolled
	var err error
	if res.Certificate, done, err = issueOne(e); err != nil {
		if errors.Is(err, ErrLink) {
			return issue{}, beside("code", err)
		}
		return issue{}, beside("csr", err)
	}
	if done.Codes {
		res.Codes = codes
	}
	res.Off = done.Off
	return res, nil
}

// clientForm reads what every form that makes a client certificate has: a name
// for the device and a certificate request.
func (p *Portal) clientForm(r *request) (label string, req Request, err error) {
	if label, err = labelIn(r); err != nil {
		return "", req, beside("label", err)
	}
	if label == "" {
		label = defaultDevice
	}
	csr, err := csrBytes(r)
	if err == nil {
		req, err = p.Authority.ParseCSR(csr)
	}
	return label, req, beside("csr", err)
}

// freshKey refuses a key that is in a certificate already: a device has its own.
// If that is the good certificate of that person's device of that name, the
// answer to the same wish was lost: it returns it.
func (p *Portal) freshKey(ctx context.Context, req Request, person, label string) (again *Certificate, err error) {
	have, err := p.Authority.CertificatesOfKey(ctx, req.Key)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	if c := have[0]; len(have) == 1 && c.Person == person && !c.Server && c.Label == label && c.Good(p.now()) {
		c, err = p.Authority.Certificate(ctx, c.Serial)
		return &c, err
	}
	return nil, wrong("csr", "This key is in another certificate already. Make a new one.")
}

// given returns what a link has given, while it would still count, to whoever
// shows it again with a request for the same key: the answer may have been lost.
// That is the certificate alone. Recovery codes, which let in without the key, are
// shown once.
func (p *Portal) given(r *request) (issue, bool) {
	ctx := r.Context()
	k, err := p.Links.living(ctx, r.PostForm.Get("code"))
	if err != nil || k.Serial == "" {
		return issue{}, false
	}
	_, req, err := p.clientForm(r)
	if err != nil {
		return issue{}, false
	}
	c, err := p.Authority.Certificate(ctx, k.Serial)
	if err != nil || c.Key != req.Key || !c.Good(p.now()) {
		return issue{}, false
	}
	who, err := p.People.Person(ctx, c.Person)
	return issue{Certificate: c, Person: who, Again: true}, err == nil && who.Active()
}

// issued answers with a client certificate: JSON for the page's script, which
// has the key, or a page to download it from.
func (p *Portal) issued(r *request, res issue) error {
	if !wantsJSON(r) {
		p.render(r, 200, "issued", page{Title: "Your certificate", Nav: "enrol", Data: map[string]any{
			"Issue": res, "PEM": chainPEM(res.Certificate.Chain),
		}})
		return nil
	}
	chain := make([]string, len(res.Certificate.Chain))
	for i, der := range res.Certificate.Chain {
		chain[i] = base64.StdEncoding.EncodeToString(der)
	}
	writeJSON(r.w, 200, map[string]any{
		"person": res.Person.Name, "site": p.Name, "label": res.Certificate.Label, "serial": res.Certificate.Serial,
		"chain": chain, "root": base64.StdEncoding.EncodeToString(p.Authority.Root().Raw),
		"codes": res.Codes, "again": res.Again, "until": res.Certificate.NotAfter.Format("2 January 2006"),
	})
	return nil
}

func (p *Portal) signUpPage(r *request) error {
	if len(p.SignUp) == 0 {
		return postern.Errorf(postern.NotFound, "This portal enrols by invitation.").WithHint("Ask its administrator for a link.")
	}
	p.render(r, 200, "signup", page{Title: "Sign up", Nav: "home", Data: p.SignUp})
	return nil
}

// signUp sends a link to an address of an accepted domain. The answer is the
// same, and as quick, whether or not the address is known.
func (p *Portal) signUp(r *request) error {
	if len(p.SignUp) == 0 {
		return p.signUpPage(r)
	}
	pg := page{Title: "Sign up", Nav: "home", Data: p.SignUp}
	email, err := postern.CleanEmail(r.PostForm.Get("email"))
	if err != nil {
		p.invalid(r, wrong("email", "That is not an e-mail address."), "signup", pg)
		return nil
	}
	if !p.maySignUp(email) {
		p.invalid(r, wrong("email", "Use an address at %s.", strings.Join(p.SignUp, " or ")), "signup", pg)
		return nil
	}
	if err := p.Authority.PermitsMail(email); err != nil {
		p.invalid(r, beside("email", err), "signup", pg)
		return nil
	}
	if err := p.limit(r.Context(), "ask/"+p.from(r), askedPerHour, time.Hour); err != nil {
		p.invalid(r, beside("email", err), "signup", pg)
		return nil
	}
	if !p.afterwards(func(ctx context.Context) { p.sendSignUp(ctx, email) }) {
		return postern.Errorf(postern.Unavailable, "The portal is busy.").WithHint("Try again in a minute.")
	}
	p.mailed(r, email)
	return nil
}

func (p *Portal) mailed(r *request, email string) {
	p.render(r, 200, "mailed", page{Title: "Look into your mail", Data: email})
}

// sendSignUp sends an address what fits it: a link to become a person, or, to
// somebody who is one, the way back in if mail is enough for that.
func (p *Portal) sendSignUp(ctx context.Context, email string) {
	if p.limit(ctx, "mail/"+email, mailsPerHour, time.Hour) != nil {
		return
	}
	who, err := p.People.PersonByEmail(ctx, email)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
		p.keep(p.Links.signUp(ctx, email))
	case err != nil:
		p.keep(err)
	case who.Active():
		p.sendKnown(ctx, who)
	}
	p.wakeMail()
}

// sendKnown tells somebody who asks to sign up, but is a person already, what
// to do; with no certificate yet that is their invitation again.
func (p *Portal) sendKnown(ctx context.Context, who postern.Person) {
	have, err := p.Authority.CertificatesOf(ctx, who.Name)
	if err != nil {
		p.keep(err)
		return
	}
	if len(have) == 0 {
		_, err = p.Links.Invite(ctx, postern.Actor{}, who)
		p.keep(err)
		return
	}
	p.queue(ctx, alreadyMessage(p.Config, who, p.now()))
}

// reservedNames are accounts that hosts have of themselves: a name that somebody
// chooses is one that an SSH certificate opens.
var reservedNames = map[string]bool{
	"root": true, "toor": true, "admin": true, "administrator": true, "daemon": true, "bin": true, "sys": true, "sync": true, "mail": true,
	"news": true, "uucp": true, "proxy": true, "www-data": true, "backup": true, "list": true, "irc": true, "nobody": true, "sshd": true,
	"systemd-network": true, "systemd-resolve": true, "messagebus": true, "postern": true, "postgres": true, "mysql": true, "libvirt-qemu": true,
	"operator": true, "games": true, "man": true, "lp": true, "git": true, "ubuntu": true, "debian": true, "ec2-user": true, "wheel": true, "sudo": true,
}
