package portal

import (
	"github.com/postern-project/postern"
)

// question is what the page of a Prove link asks: whether a person may have a name.
type question struct {
	Code  string
	Name  string
	Who   postern.Person
	Known bool // whether the link was checked already
}

func provePageOf(q question) page {
	return page{Title: "May they have this name?", Nav: "prove", Data: q}
}

func (p *Portal) provePage(r *request) error {
	p.render(r, 200, "prove", provePageOf(question{}))
	return nil
}

func (p *Portal) provedLink(r *request) (Link, question, error) {
	k, err := p.lookLink(r, Prove)
	if err != nil {
		return k, question{}, beside("code", err)
	}
	who, err := p.People.Person(r.Context(), k.Person)
	if err == nil && !who.Active() {
		err = ErrLink
	}
	return k, question{Code: r.PostForm.Get("code"), Name: k.Detail, Who: who, Known: true}, beside("code", err)
}

func (p *Portal) proveCheck(r *request) error {
	_, q, err := p.provedLink(r)
	if err != nil {
		p.invalid(r, err, "prove", provePageOf(q))
		return nil
	}
	if wantsJSON(r) {
		writeJSON(r.w, 200, map[string]any{"name": q.Name, "person": q.Who.Name, "email": q.Who.Email})
		return nil
	}
	p.render(r, 200, "prove", provePageOf(q))
	return nil
}

// prove uses up the link: the holder of the domain's address approves or refuses.
func (p *Portal) prove(r *request) error {
	k, q, err := p.provedLink(r)
	if err != nil {
		p.invalid(r, err, "prove", provePageOf(q))
		return nil
	}
	proof, err := p.Store.Proof(r.Context(), k.Person, k.Detail, newToken())
	if err != nil {
		return err
	}
	proof.Method = ByMail
	e := p.nameEvent(r, proof, postern.OK, "")
	e.Details["mailbox"] = k.Email
	yes := r.PostForm.Get("answer") == "yes"
	put := &proof
	if !yes {
		put, e.Outcome, e.Reason = nil, postern.Refused, "refused by the holder of the address"
	}
	proof.Proved = p.now().UTC()
	if err := p.Store.AnswerLink(r.Context(), p.actor(r), k.Hash, p.now(), put, e); err != nil {
		p.invalid(r, beside("code", err), "prove", provePageOf(q))
		return nil
	}
	if !yes {
		p.render(r, 200, "proved", page{Title: "Refused", Nav: "prove", Data: q})
		return nil
	}
	p.render(r, 200, "proved", page{Title: "Thank you", Nav: "prove", Done: "The name is approved.", Data: q})
	return nil
}
