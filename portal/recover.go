package portal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

const (
	recoveryCodes   = 10
	recoveryPerHour = 10 // tries for one person
)

// newCode returns a recovery code, 80 random bits in base32, and what is kept.
func newCode() (string, RecoveryCode) {
	var b [10]byte
	rand.Read(b[:])
	code := strings.ToLower(tokenCoding.EncodeToString(b[:]))
	hash, _ := hashCode(code)
	return groups(code), RecoveryCode{ID: newToken()[:16], Hash: hash}
}

// hashCode returns the hash under which a recovery code is kept; case, spaces
// and dashes do not matter.
func hashCode(s string) (hash [32]byte, ok bool) {
	if len(s) > 100 {
		return hash, false
	}
	s = strings.NewReplacer("-", "", " ", "", "\t", "").Replace(strings.ToUpper(strings.TrimSpace(s)))
	b, err := tokenCoding.DecodeString(s)
	if err != nil || len(b) != 10 {
		return hash, false
	}
	return sha256.Sum256(append([]byte("postern recovery\x00"), b...)), true
}

// freshCodes replaces a person's recovery codes.
func (p *Portal) freshCodes(ctx context.Context, person string) ([]string, error) {
	var codes []string
	var kept []RecoveryCode
	for range recoveryCodes {
		c, k := newCode()
		codes, kept = append(codes, c), append(kept, k)
	}
	e := postern.Event{Kind: postern.EventPortalCodes, Outcome: postern.OK, Person: person, Count: recoveryCodes}
	return codes, p.Store.PutRecoveryCodes(ctx, person, kept, p.now(), e)
}

// firstCodes makes codes for a person who has none.
func (p *Portal) firstCodes(ctx context.Context, person string) ([]string, error) {
	if n, err := p.Store.RecoveryCodes(ctx, person); err != nil || n > 0 {
		return nil, err
	}
	return p.freshCodes(ctx, person)
}

func (p *Portal) recoverPage(r *request) error {
	p.render(r, 200, "recover", p.recoverForm())
	return nil
}

func (p *Portal) recoverForm() page {
	return page{Title: "Lost your certificate?", Nav: "recover", Data: p.RecoverByMail && p.Mail != nil}
}

var errCode = postern.Errorf(postern.Denied, "Name and code do not go together, or the code was used before.").
	WithHint("Each code counts once. Try the next one on your list.")

// recover takes a recovery code, revokes what was lost, and goes on to
// enrolment.
func (p *Portal) recover(r *request) error {
	who, err := p.spendCode(r)
	if err != nil {
		p.invalid(r, beside("recovery", err), "recover", p.recoverForm())
		return nil
	}
	revoked, err := p.revokeLost(r, who, "one of your recovery codes")
	if err != nil {
		return err
	}
	made, err := p.Links.Device(r.Context(), who)
	if err != nil {
		return err
	}
	p.render(r, 200, "enrol", page{
		Title: "Get a new certificate", Nav: "recover",
		Done: revokedSentence(revoked),
		Data: enrolment{Code: made.Code, Person: who.Name, Email: who.Email, Minimum: minPassphrase},
	})
	return nil
}

func revokedSentence(n int) string {
	switch n {
	case 0:
		return "The code was right."
	case 1:
		return "The code was right. The certificate that you had is revoked."
	}
	return "The code was right. All certificates that you had are revoked."
}

// spendCode finds the person by name or address and spends the code. The
// answer is one and the same whatever does not fit.
func (p *Portal) spendCode(r *request) (postern.Person, error) {
	ctx := r.Context()
	id := strings.ToLower(strings.TrimSpace(r.PostForm.Get("who")))
	if err := p.limit(ctx, "recover/"+p.from(r), askedPerHour, time.Hour); err != nil {
		return postern.Person{}, err
	}
	hash, ok := hashCode(r.PostForm.Get("recovery"))
	if !ok || len(id) > 254 {
		return postern.Person{}, errCode
	}
	sum := sha256.Sum256([]byte(id))
	if err := p.limit(ctx, "recover/"+string(tokenCoding.EncodeToString(sum[:10])), recoveryPerHour, time.Hour); err != nil {
		return postern.Person{}, err
	}
	find := p.People.Person
	if strings.Contains(id, "@") {
		find = p.People.PersonByEmail
	}
	who, err := find(ctx, id)
	if err != nil && postern.CodeOf(err) != postern.NotFound {
		return who, err
	}
	if err != nil || !who.Active() {
		who = postern.Person{} // nobody's codes: the same work, and never right
	}
	spent, err := p.Store.UseRecoveryCode(ctx, who.Name, hash)
	if err == nil && !spent {
		p.keep(p.Timeline.Append(ctx, postern.Event{
			Kind: postern.EventPersonRecovered, Outcome: postern.Refused, Person: who.Name, Address: p.peer(r), Reason: "wrong recovery code",
		}))
		err = errCode
	}
	return who, err
}

// revokeLost revokes every client certificate of a person, tells them and the
// timeline, and returns how many there were.
func (p *Portal) revokeLost(r *request, who postern.Person, how string) (int, error) {
	n, err := RevokeClients(r.Context(), p.Authority, who.Name, p.now(), p.origin(r, who.Name))
	if err != nil {
		return n, err
	}
	p.queue(r.Context(), recoveredMessage(p.Config, who, how, n, p.now()))
	return n, p.Timeline.Append(r.Context(), postern.Event{
		Kind: postern.EventPersonRecovered, Outcome: postern.OK, Person: who.Name, Address: p.peer(r), Count: int64(n), Reason: how,
	})
}

// RevokeClients revokes every good client certificate of a person as lost, and
// returns how many there were.
func RevokeClients(ctx context.Context, a Authority, person string, now time.Time, by Origin) (int, error) {
	certs, err := a.CertificatesOf(ctx, person)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range certs {
		if c.Server || !c.Good(now) {
			continue
		}
		if err := a.Revoke(ctx, c.Serial, KeyCompromise, by); err != nil && postern.CodeOf(err) != postern.Conflict {
			return n, err
		}
		n++
	}
	return n, nil
}

// recoverByMail sends a link to the person's own address, where the
// configuration says that this is enough.
func (p *Portal) recoverByMail(r *request) error {
	if !p.RecoverByMail || p.Mail == nil {
		return postern.Errorf(postern.Denied, "Here a message to your address is not enough.").WithHint("Use a recovery code, another device, or ask the administrator.")
	}
	email, err := postern.CleanEmail(r.PostForm.Get("email"))
	if err != nil {
		p.invalid(r, wrong("email", "That is not an e-mail address."), "recover", p.recoverForm())
		return nil
	}
	if err := p.limit(r.Context(), "ask/"+p.from(r), askedPerHour, time.Hour); err != nil {
		p.invalid(r, beside("email", err), "recover", p.recoverForm())
		return nil
	}
	if !p.afterwards(func(ctx context.Context) { p.sendRecovery(ctx, email) }) {
		return postern.Errorf(postern.Unavailable, "The portal is busy.").WithHint("Try again in a minute.")
	}
	p.mailed(r, email)
	return nil
}

func (p *Portal) sendRecovery(ctx context.Context, email string) {
	if p.limit(ctx, "mail/"+email, mailsPerHour, time.Hour) != nil {
		return
	}
	who, err := p.People.PersonByEmail(ctx, email)
	if err != nil || !who.Active() {
		return
	}
	_, err = p.Links.Recover(ctx, who)
	p.keep(err)
	p.wakeMail()
}

func (p *Portal) recoveryPage(r *request) error {
	n, err := p.Store.RecoveryCodes(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	p.render(r, 200, "recovery", page{Title: "Recovery codes", Nav: "recovery", Data: map[string]any{"Left": n, "Codes": []string(nil)}})
	return nil
}

func (p *Portal) newRecoveryCodes(r *request) error {
	codes, err := p.freshCodes(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	p.render(r, 200, "recovery", page{Title: "Recovery codes", Nav: "recovery", Data: map[string]any{"Left": len(codes), "Codes": codes}})
	return nil
}
