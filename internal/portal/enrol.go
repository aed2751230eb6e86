package portal

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/piv"
)

const (
	triesPerHour  = 60 // of codes and links, from one IP address
	mailsPerHour  = 3  // to one mail address
	askedPerHour  = 20 // messages requested from one IP address
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
	Off     []string // what a recovery code has just revoked or disabled
}

const minPassphrase = 10

func (p *Portal) enrolPage(r *request) error {
	p.render(r, 200, "enrol", page{
		Title: "Get your certificate", Nav: "enrol",
		Data: enrolment{Minimum: minPassphrase},
	})
	return nil
}

// enrolCheck returns whose link the page has. It changes nothing.
func (p *Portal) enrolCheck(r *request) error {
	k, err := p.lookLink(r, Enrol, SignUp, Recover)
	if err != nil {
		p.invalid(r, beside("code", err), "enrol", page{
			Title: "Get your certificate",
			Data:  enrolment{Minimum: minPassphrase},
		})
		return nil
	}
	e := enrolment{Code: r.PostForm.Get("code"), Person: k.Person, Email: k.Email, Minimum: minPassphrase}
	if k.Purpose == SignUp {
		e.Ask, e.Suggest = true, suggestName(k.Email)
	}
	if wantsJSON(r) {
		writeJSON(r.w, 200, map[string]any{
			"person": e.Person, "email": e.Email, "ask": e.Ask, "suggest": e.Suggest,
			"revokes": k.Purpose == Recover,
		})
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

// suggestName returns a name made from a mail address.
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

// enrol uses up a link and issues a certificate for the key that the page made.
func (p *Portal) enrol(r *request) error {
	res, err := p.enrolled(r)
	if err != nil {
		if again, ok := p.issuedBefore(r); ok {
			return p.renderIssued(r, again)
		}
		data := enrolment{
			Code: r.PostForm.Get("code"), Person: r.PostForm.Get("person"),
			Ask: r.PostForm.Has("person"), Minimum: minPassphrase,
		}
		p.invalid(r, err, "enrol", page{Title: "Get your certificate", Nav: "enrol", Data: data})
		return nil
	}
	return p.renderIssued(r, res)
}

// issuance is what a page gets when a client certificate was issued.
type issuance struct {
	Certificate Certificate
	Person      postern.Person
	Codes       []string // new recovery codes; nil if the person has some already
	Off         Off      // what a recovery revoked and disabled with it
	Again       bool     // it was issued before, and the answer is repeated
}

func (p *Portal) enrolled(r *request) (issuance, error) {
	ctx := r.Context()
	k, err := p.lookLink(r, Enrol, SignUp, Recover)
	if err != nil {
		return issuance{}, beside("code", err)
	}
	label, req, err := p.clientForm(r)
	if err != nil {
		return issuance{}, err
	}
	who, err := p.linkPerson(ctx, k, r.PostForm.Get("person"))
	if err != nil {
		return issuance{}, err
	}
	if _, err := p.freshKey(ctx, req, "", ""); err != nil {
		return issuance{}, err
	}
	if who.Created.IsZero() {
		if err := p.addSignedUp(r, who); err != nil {
			return issuance{}, err
		}
	}
	e := Enrolment{Link: &k.Hash, Purpose: k.Purpose, Label: label}
	if k.Purpose == Recover {
		how := "a mailed link"
		e.Recovery = &Recovery{Event: p.recoveredEvent(r, who.Name, how), Mail: p.Links.recovered(who, how)}
	}
	return p.issue(r, who, e, func(e Enrolment) (Certificate, Enrolled, error) {
		return p.Authority.IssueClient(ctx, p.actor(r), who.Name, label, req, e)
	})
}

// addSignedUp adds a person who signs up. Their link is not used up yet: it stays
// valid for their first certificate.
func (p *Portal) addSignedUp(r *request, who postern.Person) error {
	err := p.People.AddPerson(r.Context(), p.actor(r), who, p.personEvent(r, postern.EventPersonAdded, who.Name))
	if err != nil && postern.CodeOf(err) == postern.Conflict {
		return wrong("person", "That name is taken. Choose another.")
	}
	return err
}

// linkPerson returns the person whom a link is for. For a SignUp link it returns a
// person who is not in the store yet.
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
		return postern.Person{}, wrong("person", "That name is reserved for the system: choose another.")
	}
	if !postern.ValidName(name) {
		return postern.Person{},
			wrong("person",
				"Use 1 to 64 lower-case letters, digits, dots, dashes or underscores, beginning with a letter or "+
					"digit.")
	}
	who, err := p.People.PersonByEmail(ctx, k.Email)
	if postern.CodeOf(err) == postern.NotFound && err != nil {
		return postern.Person{
			Name: name, Email: k.Email, Groups: []string{postern.SignedUp},
			Status: postern.PersonActive,
		}, nil
	}
	if err != nil {
		return who, err
	}
	// A person with that address was added since the link was sent. The link is
	// valid for a first certificate, never for a further one.
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
	Link     *[32]byte // hash of the link that it uses up; nil: none
	Order    string    // ID of the order that it closes; "": none
	Purpose  Purpose   // of the timeline's entry that a device is enrolled; "": no entry
	Label    string    // of the device; "" for a server
	Address  string    // the requesting client's
	Now      time.Time
	Recovery *Recovery      // done before the certificate is recorded; nil: none
	Codes    []RecoveryCode // for a person who has none left
}

// Enrolled is the result of an Enrolment.
type Enrolled struct {
	Off   Off
	Codes bool // whether Enrolment.Codes were stored
}

// issue issues a certificate to a person and stores an Enrolment in the same
// transaction: either all of it happens, or nothing.
func (p *Portal) issue(r *request, who postern.Person, e Enrolment,
	issueOne func(Enrolment) (Certificate, Enrolled, error),
) (issuance, error) {
	res := issuance{Person: who}
	e.Person, e.Address, e.Now = who.Name, p.peer(r), p.now()
	codes, kept := newCodes()
	if e.Purpose != "" {
		e.Codes = kept
	}
	var done Enrolled
	var err error
	if res.Certificate, done, err = issueOne(e); err != nil {
		if errors.Is(err, ErrLink) {
			return issuance{}, beside("code", err)
		}
		return issuance{}, beside("csr", err)
	}
	if done.Codes {
		res.Codes = codes
	}
	res.Off = done.Off
	return res, nil
}

// clientForm reads the fields of each form for a client certificate: the device's
// name and a certificate request.
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
	if err == nil {
		req.Attestation, err = upload(r, "attestation", piv.MaxSize)
	}
	return label, req, beside("csr", err)
}

// freshKey refuses a key that is in a certificate already: each device has a key of
// its own. If that certificate is valid and is for the same person and device, the
// answer to the same request was lost, and freshKey returns the certificate again.
func (p *Portal) freshKey(ctx context.Context, req Request, person, label string) (again *Certificate, err error) {
	have, err := p.Authority.CertificatesOfKey(ctx, req.Key)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	if c := have[0]; len(have) == 1 && c.Person == person && !c.Server && c.Label == label {
		if c, err = p.Authority.Certificate(ctx, c.Serial); err != nil || p.answers(c, req) {
			return &c, err
		}
	}
	return nil, wrong("csr", "This key is in another certificate already. Make a new one.")
}

// answers reports whether a certificate is what a request asks for.
func (p *Portal) answers(c Certificate, req Request) bool {
	return c.Key == req.Key && c.Valid(p.now()) && (len(req.Attestation) == 0 || c.Attested != "")
}

// issuedBefore returns the certificate that a link has granted, if the link has not
// expired and the request is for the same key: the first answer may have been lost.
// Recovery codes are not repeated, since they grant access without the key.
func (p *Portal) issuedBefore(r *request) (issuance, bool) {
	ctx := r.Context()
	k, err := p.Links.unexpired(ctx, r.PostForm.Get("code"))
	if err != nil || k.Serial == "" {
		return issuance{}, false
	}
	_, req, err := p.clientForm(r)
	if err != nil {
		return issuance{}, false
	}
	c, err := p.Authority.Certificate(ctx, k.Serial)
	if err != nil || !p.answers(c, req) {
		return issuance{}, false
	}
	who, err := p.People.Person(ctx, c.Person)
	return issuance{Certificate: c, Person: who, Again: true}, err == nil && who.Active()
}

// renderIssued answers with a client certificate: JSON for the page's script, which
// has the key, or a page to download it from.
func (p *Portal) renderIssued(r *request, res issuance) error {
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
		"chain": chain, "root": base64.StdEncoding.EncodeToString(p.Authority.Roots()[0].Raw),
		"codes": res.Codes, "again": res.Again, "until": res.Certificate.NotAfter.Format("2 January 2006"),
		"ends": res.Certificate.NotAfter.UTC().Format(time.DateOnly),
	})
	return nil
}

func (p *Portal) signUpPage(r *request) error {
	if len(p.SignUp) == 0 {
		return postern.Errorf(postern.NotFound, "This portal enrols by invitation.").
			WithHint("Ask its administrator for a link.")
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
	p.render(r, 200, "mailed", page{Title: "Check your mail", Data: email})
}

// sendSignUp sends a link to sign up, or, if a person has that address already, a
// message that says how they sign in.
func (p *Portal) sendSignUp(ctx context.Context, email string) {
	if p.limit(ctx, "mail/"+email, mailsPerHour, time.Hour) != nil {
		return
	}
	who, err := p.People.PersonByEmail(ctx, email)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
		p.logError(p.Links.signUp(ctx, email))
	case err != nil:
		p.logError(err)
	case who.Active():
		p.sendKnown(ctx, who)
	}
	p.wakeMail()
}

// sendKnown answers a person who asks to sign up again: with their invitation if
// they have no certificate yet, else with how to sign in.
func (p *Portal) sendKnown(ctx context.Context, who postern.Person) {
	have, err := p.Authority.CertificatesOf(ctx, who.Name)
	if err != nil {
		p.logError(err)
		return
	}
	if len(have) == 0 {
		_, err = p.Links.Invite(ctx, postern.Actor{}, who)
		p.logError(err)
		return
	}
	p.queue(ctx, alreadyMessage(p.Config, who, p.now()))
}

// reservedNames are accounts that exist on most hosts. A person who signs up may
// not choose one, since SSH certificates grant access to the account of one's name.
var reservedNames = map[string]bool{
	"root": true, "toor": true, "admin": true, "administrator": true, "daemon": true, "bin": true, "sys": true,
	"sync": true, "mail": true,
	"news": true, "uucp": true, "proxy": true, "www-data": true, "backup": true, "list": true, "irc": true,
	"nobody": true, "sshd": true,
	"systemd-network": true, "systemd-resolve": true, "messagebus": true, "postern": true, "postgres": true,
	"mysql": true, "libvirt-qemu": true,
	"operator": true, "games": true, "man": true, "lp": true, "git": true, "ubuntu": true, "debian": true,
	"ec2-user": true, "wheel": true, "sudo": true,
}
