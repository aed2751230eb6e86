package portal

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

const (
	maxLabel      = 40
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
	Minimum int // length of a passphrase
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
	Revoked     int
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
	if err := p.freshKey(ctx, req); err != nil {
		return issue{}, err
	}
	if err := p.Links.use(ctx, k); err != nil {
		return issue{}, beside("code", err)
	}
	res, err := p.enrolUnder(r, k, who, label, req)
	if err != nil {
		// The link was not of use: it stays good. The request may be over
		// already, the link must not be lost with it.
		p.keep(p.Store.ReleaseLink(context.WithoutCancel(ctx), k.Hash))
	}
	return res, err
}

// linkPerson returns whom a link is for; with a SignUp link that is a person
// who does not exist yet.
func (p *Portal) linkPerson(ctx context.Context, k Link, name string) (postern.Person, error) {
	if k.Purpose != SignUp {
		who, err := p.People.Person(ctx, k.Person)
		if err != nil || !who.Active() {
			return who, beside("code", orErr(err, errLink))
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
		return postern.Person{Name: name, Email: k.Email, Status: postern.PersonActive}, nil
	}
	if err != nil {
		return who, err
	}
	// The address has got a person since. It is good for a first certificate,
	// never for a further one.
	have, err := p.Authority.CertificatesOf(ctx, who.Name)
	if err == nil && (len(have) > 0 || !who.Active()) {
		err = beside("code", errLink)
	}
	return who, err
}

func orErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// enrolUnder does what a spent link is good for.
func (p *Portal) enrolUnder(r *request, k Link, who postern.Person, label string, req Request) (issue, error) {
	ctx := r.Context()
	res := issue{Person: who}
	var err error
	switch {
	case k.Purpose == SignUp && who.Created.IsZero():
		if err := p.People.AddPerson(ctx, who, p.personEvent(r, postern.EventPersonAdded, who.Name)); err != nil {
			if postern.CodeOf(err) == postern.Conflict {
				err = wrong("person", "That name is taken. Choose another.")
			}
			return res, err
		}
	case k.Purpose == Recover:
		if res.Revoked, err = p.revokeLost(r, who, "an administrator's or mailed link"); err != nil {
			return res, err
		}
	}
	if res.Certificate, err = p.Authority.IssueClient(ctx, who.Name, label, req, p.origin(r, who.Name)); err != nil {
		return res, beside("csr", err)
	}
	event := postern.Event{
		Kind: postern.EventPortalEnrolled, Outcome: postern.OK, Person: who.Name, Address: p.peer(r), Object: label,
		Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: res.Certificate.Serial}},
		Details: map[string]string{"purpose": string(k.Purpose)},
	}
	if err := p.Timeline.Append(ctx, event); err != nil {
		return res, err
	}
	res.Codes, err = p.firstCodes(ctx, who.Name)
	return res, err
}

// clientForm reads what every form that makes a client certificate has: a name
// for the device and a certificate request.
func (p *Portal) clientForm(r *request) (label string, req Request, err error) {
	label = strings.Join(strings.Fields(r.PostForm.Get("label")), " ")
	if label == "" {
		label = defaultDevice
	}
	if len(label) > maxLabel || label != printable(label) {
		return "", req, wrong("label", "At most %d letters.", maxLabel)
	}
	csr, err := csrBytes(r)
	if err == nil {
		req, err = p.Authority.ParseCSR(csr)
	}
	return label, req, beside("csr", err)
}

// freshKey refuses a key that is in a certificate already: a device has its own.
func (p *Portal) freshKey(ctx context.Context, req Request) error {
	have, err := p.Authority.CertificatesOfKey(ctx, req.Key)
	if err != nil {
		return err
	}
	if len(have) > 0 {
		return wrong("csr", "This key is in another certificate already. Make a new one.")
	}
	return nil
}

func (p *Portal) origin(r *request, person string) Origin {
	return Origin{Person: person, Address: p.peer(r)}
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
		"codes": res.Codes, "revoked": strconv.Itoa(res.Revoked), "until": res.Certificate.NotAfter.Format("2 January 2006"),
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
		_, err = p.Links.Invite(ctx, who)
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
