package portal

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

func (p *Portal) servers(r *request) error {
	certs, err := p.Authority.CertificatesOf(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	orders, err := p.Store.OrdersOf(r.Context(), r.who.Name, p.now())
	if err != nil {
		return err
	}
	_, servers := p.split(certs)
	p.render(r, 200, "servers", page{
		Title: "Servers", Nav: "servers",
		Data: map[string]any{"Servers": servers, "Orders": orders},
	})
	return nil
}

func orderPage(title string) page { return page{Title: title, Nav: "servers"} }

func (p *Portal) newOrderPage(r *request) error {
	p.render(r, 200, "neworder", orderPage("A certificate for a server"))
	return nil
}

// newOrder opens an order, from names or from a certificate request.
func (p *Portal) newOrder(r *request) error {
	o, err := p.orderForm(r)
	if err != nil {
		p.invalid(r, err, "neworder", orderPage("A certificate for a server"))
		return nil
	}
	if err := p.Store.PutOrder(r.Context(), p.actor(r), o); err != nil {
		return err
	}
	p.redirect(r, "/servers/"+o.ID)
	return nil
}

func (p *Portal) orderForm(r *request) (Order, error) {
	now := p.now().UTC()
	o := Order{ID: newToken()[:20], Person: r.who.Name, Created: now, Expires: now.Add(p.OrderLife)}
	if err := p.limit(r.Context(), "order/"+r.who.Name, 60, time.Hour); err != nil {
		return o, beside("names", err)
	}
	csr, err := csrBytes(r)
	if err != nil {
		return o, err
	}
	if len(strings.TrimSpace(string(csr))) == 0 {
		o.Names, err = ParseNames(r.PostForm.Get("names"))
		return o, beside("names", err)
	}
	req, err := p.serverRequest(r, csr)
	if err != nil {
		return o, err
	}
	o.CSR = csr
	asked := strings.Join(req.Names, "\n") + "\n" + r.PostForm.Get("names")
	if o.Names, err = ParseNames(asked); err != nil {
		return o, beside("csr", err)
	}
	return o, nil
}

// serverRequest reads a request for a server certificate. It refuses a key that is in
// a certificate of another person or of a device, or in a revoked one.
func (p *Portal) serverRequest(r *request, csr []byte) (Request, error) {
	req, err := p.Authority.ParseCSR(csr)
	if err != nil {
		return req, beside("csr", err)
	}
	have, err := p.Authority.CertificatesOfKey(r.Context(), req.Key)
	if err != nil {
		return req, err
	}
	for _, c := range have {
		switch {
		case c.Person != r.who.Name:
			return req, wrong("csr", "This key is in the certificate of another person. Make a key of your own.")
		case !c.Server:
			return req,
				wrong("csr", "This key is in the certificate of one of your devices. Make another for the server.")
		case c.Revoked:
			return req, wrong("csr", "This key was in a certificate that is revoked. Make a new one.")
		}
	}
	return req, nil
}

// ownOrder returns one of the person's open orders. Another person's fails with the
// same error as one that does not exist.
func (p *Portal) ownOrder(r *request) (Order, error) {
	o, err := p.Store.Order(r.Context(), r.PathValue("id"))
	if err != nil && postern.CodeOf(err) != postern.NotFound {
		return o, err
	}
	if err != nil || o.Person != r.who.Name || !o.Expires.After(p.now()) {
		return o, postern.Errorf(postern.NotFound, "You have no such order.").
			WithHint("It may have expired: make a new one.")
	}
	return o, nil
}

// step is one name of an order, with how it was or can be proved.
type step struct {
	Name      string
	Proof     Proof
	Done      bool
	How       string   // how it was proved
	Mailboxes []string // who may prove it by mail
	HTTP      string   // URL of the file; "" if the name cannot be proved so
	DNS       string   // name of the TXT record; "" if the name cannot be proved so
	Allow     bool     // whether an administrator can be asked
	Error     string
}

func (p *Portal) steps(ctx context.Context, o Order) ([]step, error) {
	steps := make([]step, len(o.Names))
	for i, name := range o.Names {
		proof, err := p.Store.Proof(ctx, o.Person, name, newToken())
		if err != nil {
			return nil, err
		}
		s := step{Name: name, Proof: proof, Allow: proof.Asked.IsZero()}
		allowed, err := p.allowedName(ctx, o.Person, name)
		if err != nil {
			return nil, err
		}
		switch {
		case allowed:
			s.Done, s.How = true, "on the administrators' list"
		case p.proofValid(proof):
			s.Done, s.How = true, map[Method]string{
				ByMail: "by mail", ByHTTP: "by the file on its web server",
				ByDNS: "by its DNS record",
			}[proof.Method]
		}
		if !isWildcard(name) {
			s.HTTP = "http://" + urlHost(name) + proofPath(proof.Value)
		}
		if !isAddress(name) {
			s.DNS = dnsProofLabel + strings.TrimPrefix(name, "*.")
		}
		steps[i] = s
	}
	return steps, nil
}

// urlHost returns a name as the host of a URL.
func urlHost(name string) string {
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// proofValid reports whether a proof was made and has not expired. It does not
// repeat the check.
func (p *Portal) proofValid(proof Proof) bool {
	return proof.Method != "" && p.now().Sub(proof.Proved) < p.ProofLife
}

func (p *Portal) allowedName(ctx context.Context, person, name string) (bool, error) {
	for _, s := range p.NamePatterns {
		if pat, err := ParsePattern(s); err == nil && pat.Match(name) {
			return true, nil
		}
	}
	list, err := p.Store.Allowed(ctx)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list, func(a Allowed) bool {
		pat, err := ParsePattern(a.Pattern)
		return err == nil && (a.Person == "" || a.Person == person) && pat.Match(name)
	}), nil
}

func (p *Portal) order(r *request) error {
	o, err := p.ownOrder(r)
	if err != nil {
		return err
	}
	if o.Serial != "" {
		p.redirect(r, "/certificates/"+o.Serial)
		return nil
	}
	return p.renderOrder(r, 200, o, nil, nil)
}

// renderOrder shows an order, with errors beside names and fields.
func (p *Portal) renderOrder(r *request, status int, o Order, atName, atField map[string]string) error {
	steps, err := p.steps(r.Context(), o)
	if err != nil {
		return err
	}
	open := 0
	for i := range steps {
		steps[i].Error = atName[steps[i].Name]
		if !steps[i].Done {
			open++
			steps[i].Mailboxes = p.mailboxes(r.Context(), steps[i].Name)
			if p.Mail == nil {
				steps[i].Mailboxes = nil
			}
		}
	}
	pg := orderPage("Certificate for " + o.Names[0])
	pg.Errors = atField
	pg.Data = map[string]any{"Order": o, "Steps": steps, "Open": open, "Ready": open == 0, "HasCSR": len(o.CSR) > 0}
	p.render(r, status, "order", pg)
	return nil
}

// named returns the order and the one of its names that the form is about.
func (p *Portal) named(r *request) (Order, Proof, error) {
	o, err := p.ownOrder(r)
	if err != nil {
		return o, Proof{}, err
	}
	name := r.PostForm.Get("name")
	if o.Serial != "" || !slices.Contains(o.Names, name) {
		return o, Proof{}, postern.Errorf(postern.NotFound, "That name is not in this order.")
	}
	proof, err := p.Store.Proof(r.Context(), o.Person, name, newToken())
	return o, proof, err
}

// orderMail sends the request to approve a name to one of its mailboxes.
func (p *Portal) orderMail(r *request) error {
	o, proof, err := p.named(r)
	if err != nil {
		return err
	}
	to := r.PostForm.Get("to")
	problem := ""
	if p.Mail == nil || !slices.Contains(p.mailboxes(r.Context(), proof.Name), to) {
		problem = "Choose one of the addresses."
	} else if err := p.limit(r.Context(), "mail/"+to, mailsPerHour, time.Hour); err != nil {
		if internalError(err) {
			return err
		}
		problem = sentence(err)
	}
	if problem != "" {
		return p.renderOrder(r, 400, o, map[string]string{proof.Name: problem}, nil)
	}
	if err := p.Links.prove(r.Context(), p.actor(r), r.who, proof.Name, to); err != nil {
		return err
	}
	p.wakeMail()
	p.redirect(r, "/servers/"+o.ID+"?done=sent")
	return nil
}

// orderCheck checks the proof of a name by file or record.
func (p *Portal) orderCheck(r *request) error {
	o, proof, err := p.named(r)
	if err != nil {
		return err
	}
	if err := p.limit(r.Context(), "check/"+r.who.Name, 120, time.Hour); err != nil {
		if internalError(err) {
			return err
		}
		return p.renderOrder(r, 429, o, map[string]string{proof.Name: sentence(err)}, nil)
	}
	proof.Method = Method(r.PostForm.Get("method"))
	if err := p.lookFor(r.Context(), proof); err != nil {
		p.logError(p.Timeline.Append(r.Context(), p.nameEvent(r, proof, postern.Refused, err.Error())))
		return p.renderOrder(r, 400, o, map[string]string{proof.Name: "Not proved yet: " + err.Error() + "."}, nil)
	}
	proof.Proved = p.now().UTC()
	if err := p.Store.PutProof(r.Context(), p.actor(r), proof, p.nameEvent(r, proof, postern.OK, "")); err != nil {
		return err
	}
	p.redirect(r, "/servers/"+o.ID)
	return nil
}

func (p *Portal) nameEvent(r *request, proof Proof, outcome postern.Outcome, reason string) postern.Event {
	return postern.Event{
		Kind: postern.EventPortalName, Outcome: outcome, Person: proof.Person, Address: p.peer(r), Object: proof.Name,
		Reason:  reason,
		Details: map[string]string{"method": string(proof.Method)},
	}
}

// lookFor fetches a proof by file or record.
func (p *Portal) lookFor(ctx context.Context, proof Proof) error {
	switch {
	case proof.Method == ByHTTP && !isWildcard(proof.Name):
		return p.byFile(ctx, proof.Name, proof.Value)
	case proof.Method == ByDNS && !isAddress(proof.Name):
		return p.byRecord(ctx, proof.Name, proof.Value)
	}
	return postern.Errorf(postern.Invalid, "this name cannot be proved that way")
}

// orderAsk asks the administrators to allow a name.
func (p *Portal) orderAsk(r *request) error {
	o, proof, err := p.named(r)
	if err != nil {
		return err
	}
	proof.Asked = p.now().UTC()
	e := p.nameEvent(r, proof, postern.OK, "")
	e.Details = map[string]string{"method": "asked"}
	if err := p.Store.PutProof(r.Context(), p.actor(r), proof, e); err != nil {
		return err
	}
	p.redirect(r, "/servers/"+o.ID+"?done=asked")
	return nil
}

// recheck checks every name again at the moment of issuance: against the list as it
// is now, and with files and records fetched again. Proofs by mail are valid for
// ProofLife.
func (p *Portal) recheck(ctx context.Context, who postern.Person, names []string) error {
	bad := map[string]string{}
	for _, name := range names {
		if err := p.recheckName(ctx, who, name); err != nil {
			if internalError(err) {
				return err
			}
			bad[name] = sentence(err)
		}
	}
	if len(bad) > 0 {
		return &formError{fields: bad, code: postern.Denied}
	}
	return nil
}

func (p *Portal) recheckName(ctx context.Context, who postern.Person, name string) error {
	allowed, err := p.allowedName(ctx, who.Name, name)
	if err != nil || allowed {
		return err
	}
	proof, err := p.Store.Proof(ctx, who.Name, name, newToken())
	if err != nil {
		return err
	}
	switch proof.Method {
	case ByMail:
		if p.proofValid(proof) {
			return nil
		}
		return postern.Errorf(postern.Denied, "The approval by mail is too old.").WithHint("Prove the name again.")
	case ByHTTP, ByDNS:
		if err := p.lookFor(ctx, proof); err != nil {
			return postern.Errorf(postern.Denied, "The proof is not there any more: %v.", err).
				WithHint("Leave it in place until the certificate is issued, and for renewals.")
		}
		return nil
	}
	return postern.Errorf(postern.Denied, "This name is not proved.")
}

// orderIssue issues the certificate of an order.
func (p *Portal) orderIssue(r *request) error {
	o, err := p.ownOrder(r)
	if err != nil {
		return err
	}
	if o.Serial != "" {
		return p.orderDone(r, o)
	}
	req, err := p.orderRequest(r, o)
	if err != nil {
		return p.orderWrong(r, o, err, nil)
	}
	if err := p.recheck(r.Context(), r.who, o.Names); err != nil {
		return p.orderWrong(r, o, nil, err)
	}
	res, err := p.issue(r, r.who, Enrolment{Order: o.ID}, func(e Enrolment) (Certificate, Enrolled, error) {
		return p.Authority.IssueServer(r.Context(), p.actor(r), o.Names, req, e)
	})
	if err != nil {
		return p.orderWrong(r, o, err, nil)
	}
	return p.issuedServer(r, res.Certificate)
}

// orderDone repeats the answer of an order that is done, since the first may have been
// lost. The request must have the certificate's key.
func (p *Portal) orderDone(r *request, o Order) error {
	req, err := p.orderRequest(r, o)
	if err != nil {
		return p.orderWrong(r, o, err, nil)
	}
	c, err := p.Authority.Certificate(r.Context(), o.Serial)
	if err == nil && (c.Key != req.Key || c.Revoked) {
		err = postern.Errorf(postern.Conflict, "This order is done.").
			WithHint("Its certificate is listed under Servers.")
	}
	if err != nil {
		return err
	}
	return p.issuedServer(r, c)
}

// orderRequest returns the certificate request of an order: the one that the order was
// opened with, or the one in the form. All its names must be in the order.
func (p *Portal) orderRequest(r *request, o Order) (Request, error) {
	csr, err := csrBytes(r)
	if err != nil {
		return Request{}, err
	}
	if len(o.CSR) > 0 {
		csr = o.CSR
	}
	req, err := p.serverRequest(r, csr)
	if err != nil {
		return req, err
	}
	for _, name := range req.Names {
		if !slices.Contains(o.Names, name) {
			return req, wrong("csr", "The request asks for %s, which is not in this order.", name)
		}
	}
	return req, nil
}

// orderWrong shows an order with an error at its form or at its names.
func (p *Portal) orderWrong(r *request, o Order, atForm, atNames error) error {
	fe, ok := asForm(atForm)
	ne, named := asForm(atNames)
	switch {
	case ok && wantsJSON(r):
		writeJSON(r.w, fe.code.HTTPStatus(), map[string]any{"errors": fe.fields})
		return nil
	case named && wantsJSON(r):
		writeJSON(r.w, ne.code.HTTPStatus(), map[string]any{"errors": map[string]string{"": ne.words()}})
		return nil
	case ok:
		return p.renderOrder(r, fe.code.HTTPStatus(), o, nil, fe.fields)
	case named:
		return p.renderOrder(r, ne.code.HTTPStatus(), o, ne.fields, nil)
	}
	return orErr(atForm, atNames)
}

// issuedServer shows a certificate. The page's script gets the files of every
// layout, with KeyPlaceholder for the key, which only the page has.
func (p *Portal) issuedServer(r *request, c Certificate) error {
	if !wantsJSON(r) {
		p.redirect(r, "/certificates/"+c.Serial)
		return nil
	}
	layouts := map[string]Layout{}
	for _, kind := range p.Authority.Layouts() {
		l, err := p.Authority.Layout(r.Context(), kind, c, KeyPlaceholder)
		if err != nil {
			return err
		}
		layouts[kind] = l
	}
	chain := make([]string, len(c.Chain))
	for i, der := range c.Chain {
		chain[i] = base64.StdEncoding.EncodeToString(der)
	}
	writeJSON(r.w, 200, map[string]any{
		"serial": c.Serial, "name": fileName(c), "chain": chain, "key": KeyPlaceholder, "layouts": layouts,
		"kinds": p.Authority.Layouts(), "until": c.NotAfter.Format("2 January 2006"),
	})
	return nil
}

func (p *Portal) orderCancel(r *request) error {
	o, err := p.ownOrder(r)
	if err != nil {
		return err
	}
	if err := p.Store.DropOrder(r.Context(), p.actor(r), o.ID); err != nil {
		return err
	}
	p.redirect(r, "/servers?done=cancelled")
	return nil
}
