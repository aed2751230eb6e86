package portal

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/console"
)

func (p *Portal) people(r *request) error {
	return p.renderPeople(r, 200, nil)
}

// peoplePage is how many people one page lists.
const peoplePage = 100

func (p *Portal) renderPeople(r *request, status int, errs map[string]string) error {
	after := r.URL.Query().Get("after")
	if after != "" && !postern.ValidName(after) {
		return postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	people, err := p.People.Page(r.Context(), after, peoplePage+1)
	if err != nil {
		return err
	}
	next := ""
	if len(people) > peoplePage {
		people = people[:peoplePage]
		next = people[peoplePage-1].Name
	}
	asked, err := p.Store.AskedProofs(r.Context())
	if err != nil {
		return err
	}
	pg := page{
		Title: "People", Nav: "admin", Tab: "people", Errors: errs,
		Data: map[string]any{"People": people, "Next": next, "Asked": len(asked), "Mails": p.Mail != nil},
	}
	if errs != nil {
		pg.Values = map[string]string{}
		for k := range r.PostForm {
			pg.Values[k] = r.PostForm.Get(k)
		}
	}
	p.render(r, status, "people", pg)
	return nil
}

// invite adds a person and sends, or shows, their link.
func (p *Portal) invite(r *request) error {
	who, err := p.newPerson(r)
	if err == nil {
		err = p.People.AddPerson(r.Context(), p.actor(r), who, p.personEvent(r, postern.EventPersonAdded, who.Name))
		if err != nil && postern.CodeOf(err) == postern.Conflict {
			err = beside("name", err)
		}
	}
	if fe, ok := asForm(err); ok {
		return p.renderPeople(r, fe.code.HTTPStatus(), fe.fields)
	}
	if err != nil {
		return err
	}
	return p.sendInvitation(r, who)
}

// personEvent returns the event that records a change to a person.
func (p *Portal) personEvent(r *request, kind, name string) postern.Event {
	e := postern.Event{Kind: kind, Outcome: postern.OK, Person: name, Address: p.peer(r)}
	if r.who.Name != name && r.who.Name != "" {
		e.Details = map[string]string{"by": r.who.Name}
	}
	return e
}

func (p *Portal) newPerson(r *request) (postern.Person, error) {
	who := postern.Person{
		Name:   strings.ToLower(strings.TrimSpace(r.PostForm.Get("name"))),
		Status: postern.PersonActive,
	}
	if !postern.ValidName(who.Name) {
		return who, wrong("name", "Use 1 to 64 lower-case letters, digits, dots, dashes or underscores.")
	}
	return who, p.personForm(r, &who)
}

// personForm reads the fields of a person that can be changed.
func (p *Portal) personForm(r *request, who *postern.Person) error {
	who.FullName = strings.Join(strings.Fields(r.PostForm.Get("full_name")), " ")
	switch {
	case utf8.RuneCountInString(who.FullName) > maxFullName:
		return wrong("full_name", "At most %d characters.", maxFullName)
	case strings.ContainsFunc(who.FullName, unprintable):
		return wrong("full_name", "Use letters and other visible characters.")
	}
	who.Email = ""
	if mail := strings.TrimSpace(r.PostForm.Get("email")); mail != "" {
		var err error
		if who.Email, err = postern.CleanEmail(mail); err != nil {
			return wrong("email", "That is not an e-mail address.")
		}
		if err := p.Authority.PermitsMail(who.Email); err != nil {
			return beside("email", err)
		}
	}
	who.Groups = nil
	for g := range strings.FieldsFuncSeq(r.PostForm.Get("groups"), func(c rune) bool { return c == ',' || c <= ' ' }) {
		if !postern.ValidName(g) {
			return wrong("groups", "%s cannot be a group's name.", printable(g))
		}
		who.Groups = append(who.Groups, g)
	}
	slices.Sort(who.Groups)
	who.Groups = slices.Compact(who.Groups)
	return nil
}

// maxFullName is how many characters a full name may have.
const maxFullName = 64

func (p *Portal) sendInvitation(r *request, who postern.Person) error {
	made, err := p.Links.Invite(r.Context(), p.actor(r), who)
	if err != nil {
		return err
	}
	return p.showMade(r, who, made)
}

// showMade goes back to the person's page if the link was sent by mail, and
// otherwise shows the link, for the administrator to hand it over.
func (p *Portal) showMade(r *request, who postern.Person, made Made) error {
	if made.Sent {
		p.redirect(r, "/admin/people/"+who.Name+"?done=sent")
		return nil
	}
	p.renderLink(r, "Give this link to "+who.Name, "admin", made)
	return nil
}

// pathPerson returns the person whose name is in the request's path.
func (p *Portal) pathPerson(r *request) (postern.Person, error) {
	name := r.PathValue("name")
	if !postern.ValidName(name) {
		return postern.Person{}, postern.Errorf(postern.NotFound, "There is no such person.")
	}
	return p.People.Person(r.Context(), name)
}

func (p *Portal) personPage(r *request) error {
	who, err := p.pathPerson(r)
	if err != nil {
		return err
	}
	return p.renderPerson(r, 200, who, nil)
}

// renderPerson shows a person to an administrator, with errors beside the fields
// of the form.
func (p *Portal) renderPerson(r *request, status int, who postern.Person, errs map[string]string) error {
	certs, err := p.Authority.CertificatesOf(r.Context(), who.Name)
	if err != nil {
		return err
	}
	history, err := p.history(r.Context(), console.Query{}.With(console.Person, who.Name))
	if err != nil {
		return err
	}
	codes, err := p.Store.RecoveryCodes(r.Context(), who.Name)
	if err != nil {
		return err
	}
	devices, servers := p.split(certs)
	pg := page{Title: who.Name, Nav: "admin", Tab: "people", Errors: errs, Data: map[string]any{
		"P": who, "Devices": devices, "Servers": servers, "Codes": codes,
		"History":  history,
		"Self":     who.Name == r.who.Name,
		"SignedUp": slices.Contains(who.Groups, postern.SignedUp),
	}}
	pg.Values = map[string]string{
		"email": who.Email, "full_name": who.FullName,
		"groups": strings.Join(who.OwnGroups(), " "),
	}
	if errs != nil {
		for k := range pg.Values {
			pg.Values[k] = r.PostForm.Get(k)
		}
	}
	p.render(r, status, "person", pg)
	return nil
}

// personDo changes, suspends, resumes, invites or recovers a person.
func (p *Portal) personDo(r *request) error {
	who, err := p.pathPerson(r)
	if err != nil {
		return err
	}
	back := "/admin/people/" + who.Name
	switch do := r.PathValue("do"); {
	case do == "change":
		return p.changePerson(r, who)
	case do == "approve":
		return p.setPerson(r, who, func(who *postern.Person) {
			who.Groups = slices.DeleteFunc(who.Groups, func(g string) bool { return g == postern.SignedUp })
		})
	case do == "suspend" && who.Name == r.who.Name:
		return postern.Errorf(postern.Invalid, "You cannot suspend yourself.").WithHint("Ask another administrator.")
	case do == "suspend":
		if err := p.People.SetPersonStatus(r.Context(), p.actor(r), who.Name, postern.PersonSuspended,
			p.personEvent(r, postern.EventPersonSuspended, who.Name)); err != nil {
			return err
		}
		p.redirect(r, back+"?done=suspended")
	case do == "resume":
		if err := p.People.SetPersonStatus(r.Context(), p.actor(r), who.Name, postern.PersonActive,
			p.personEvent(r, postern.EventPersonResumed, who.Name)); err != nil {
			return err
		}
		p.redirect(r, back+"?done=resumed")
	case !who.Active():
		return postern.Errorf(postern.Invalid, "This person is not active.").WithHint("Resume them first.")
	case do == "invite":
		return p.sendInvitation(r, who)
	case do == "recover":
		return p.recoverPerson(r, who)
	default:
		return postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	return nil
}

// changePerson sets a person's address, full name and groups to what the form
// says.
func (p *Portal) changePerson(r *request, who postern.Person) error {
	var want postern.Person
	err := p.personForm(r, &want)
	if err == nil {
		err = p.setPerson(r, who, func(who *postern.Person) {
			who.Email, who.FullName, who.Groups = want.Email, want.FullName, want.Groups
		})
	}
	switch {
	case errors.Is(err, ErrLastAdministrator):
		err = wrong("groups", "%s is the last administrator. Add another person to that group first.", who.Name)
	case postern.CodeOf(err) == postern.Conflict:
		err = beside("email", err)
	}
	if fe, ok := asForm(err); ok {
		return p.renderPerson(r, fe.code.HTTPStatus(), who, fe.fields)
	}
	return err
}

func (p *Portal) setPerson(r *request, who postern.Person, change func(*postern.Person)) error {
	e := p.personEvent(r, postern.EventPersonChanged, who.Name)
	if _, err := p.People.ChangePerson(r.Context(), p.actor(r), who.Name, change,
		e, p.Links.Changed("the administrator "+r.who.Name)); err != nil {
		return err
	}
	p.redirect(r, "/admin/people/"+who.Name+"?done=changed")
	return nil
}

// recoverPerson revokes and disables a person's credentials at once, and makes the
// link by which they enrol again.
func (p *Portal) recoverPerson(r *request, who postern.Person) error {
	e := p.recoveredEvent(r, who.Name, "the administrator "+r.who.Name)
	e.Details = map[string]string{"by": r.who.Name}
	made, _, err := p.Links.RecoverNow(r.Context(), p.actor(r), who, e, r.PostForm.Has("keep"))
	if err != nil {
		return err
	}
	if made.Sent {
		p.redirect(r, "/admin/people/"+who.Name+"?done=recovered")
		return nil
	}
	return p.showMade(r, who, made)
}

func (p *Portal) names(r *request) error {
	return p.renderNames(r, 200, nil)
}

func (p *Portal) renderNames(r *request, status int, errs map[string]string) error {
	allowed, err := p.Store.Allowed(r.Context())
	if err != nil {
		return err
	}
	asked, err := p.Store.AskedProofs(r.Context())
	if err != nil {
		return err
	}
	pg := page{
		Title: "Names", Nav: "admin", Tab: "names", Errors: errs,
		Data: map[string]any{"Allowed": allowed, "Asked": asked, "Configured": p.NamePatterns},
	}
	if errs != nil {
		pg.Values = map[string]string{"pattern": r.PostForm.Get("pattern"), "person": r.PostForm.Get("person")}
	}
	p.render(r, status, "names", pg)
	return nil
}

// allowNames adds a pattern to the list, for one person or for all.
func (p *Portal) allowNames(r *request) error {
	pat, err := ParsePattern(r.PostForm.Get("pattern"))
	if err != nil {
		return p.renderNames(r, 400, map[string]string{"pattern": sentence(err)})
	}
	a := Allowed{
		Pattern: pat.String(), Person: strings.TrimSpace(r.PostForm.Get("person")), By: r.who.Name,
		Created: p.now().UTC(),
	}
	if a.Person != "" {
		if _, err := p.People.Person(r.Context(), a.Person); err != nil {
			return p.renderNames(r, 400, map[string]string{"person": "There is no such person."})
		}
	}
	if err := p.Store.PutAllowed(r.Context(), p.actor(r), a, p.allowEvent(r, a, postern.OK)); err != nil {
		return err
	}
	p.redirect(r, "/admin/names?done=allowed")
	return nil
}

func (p *Portal) allowEvent(r *request, a Allowed, outcome postern.Outcome) postern.Event {
	return postern.Event{
		Kind: postern.EventPortalAllowed, Outcome: outcome, Person: r.who.Name, Address: p.peer(r), Object: a.Pattern,
		Details: map[string]string{"for": a.Person},
	}
}

func (p *Portal) dropNames(r *request) error {
	a := Allowed{Pattern: r.PostForm.Get("pattern"), Person: r.PostForm.Get("person")}
	if err := p.Store.DropAllowed(r.Context(), p.actor(r), a.Pattern, a.Person,
		p.allowEvent(r, a, postern.Refused)); err != nil {
		return err
	}
	p.redirect(r, "/admin/names?done=dropped")
	return nil
}

// refuseName refuses a name that a person asked for.
func (p *Portal) refuseName(r *request) error {
	asked, err := p.Store.AskedProofs(r.Context())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(asked, func(q Proof) bool {
		return q.Person == r.PostForm.Get("person") && q.Name == r.PostForm.Get("name")
	})
	if i < 0 {
		return postern.Errorf(postern.NotFound, "No person waits for that name.")
	}
	q := asked[i]
	q.Asked = time.Time{}
	e := p.nameEvent(r, q, postern.Refused, "refused by "+r.who.Name)
	if err := p.Store.PutProof(r.Context(), p.actor(r), q, e); err != nil {
		return err
	}
	p.redirect(r, "/admin/names?done=refused")
	return nil
}
