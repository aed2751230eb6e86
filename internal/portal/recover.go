package portal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

const recoveryCodes = 10

// newCodes returns recovery codes, 80 random bits each in base32, and what is
// kept of them. With so many bits there is no guessing: tries are counted by
// address alone, so that nobody can lock somebody else out.
func newCodes() (codes []string, kept []RecoveryCode) {
	for range recoveryCodes {
		var b [10]byte
		rand.Read(b[:])
		code := strings.ToLower(tokenCoding.EncodeToString(b[:]))
		hash, _ := hashCode(code)
		codes, kept = append(codes, groups(code)), append(kept, RecoveryCode{ID: newToken()[:16], Hash: hash})
	}
	return codes, kept
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

func (p *Portal) recoverPage(r *request) error {
	p.render(r, 200, "recover", p.recoverForm())
	return nil
}

func (p *Portal) recoverForm() page {
	return page{Title: "Lost your certificate?", Nav: "recover", Data: p.RecoverByMail && p.Mail != nil}
}

// ErrCode says that a recovery code does not count. It is one and the same
// whatever does not fit.
var ErrCode = postern.Errorf(postern.Denied, "Name and code do not go together, or the code was used before.").
	WithHint("Each code counts once. Try the next one on your list.")

// recover takes a recovery code, switches off what was lost, and goes on to
// enrolment.
func (p *Portal) recover(r *request) error {
	who, made, off, err := p.spendCode(r)
	if err != nil {
		p.invalid(r, beside("recovery", err), "recover", p.recoverForm())
		return nil
	}
	p.render(r, 200, "enrol", page{
		Title: "Get a new certificate", Nav: "recover",
		Done: "The code was right.",
		Data: enrolment{Code: made.Code, Person: who.Name, Email: who.Email, Minimum: minPassphrase, Off: off.Words()},
	})
	return nil
}

// spendCode finds the person by name or address and spends the code. The work
// is the same for somebody who is not known.
func (p *Portal) spendCode(r *request) (postern.Person, Made, Off, error) {
	ctx := r.Context()
	fail := func(err error) (postern.Person, Made, Off, error) { return postern.Person{}, Made{}, Off{}, err }
	id := strings.ToLower(strings.TrimSpace(r.PostForm.Get("who")))
	if err := p.limit(ctx, "recover/"+p.from(r), askedPerHour, time.Hour); err != nil {
		return fail(err)
	}
	hash, ok := hashCode(r.PostForm.Get("recovery"))
	if !ok || len(id) > 254 {
		return fail(ErrCode)
	}
	find := p.People.Person
	if strings.Contains(id, "@") {
		find = p.People.PersonByEmail
	}
	who, err := find(ctx, id)
	if err != nil && postern.CodeOf(err) != postern.NotFound {
		return fail(err)
	}
	if err != nil || !who.Active() {
		who = postern.Person{} // nobody's codes: the same work, and never right
	}
	made, off, err := p.Links.withCode(ctx, p.actor(r), who, p.recoveredEvent(r, who.Name, "one of your recovery codes"), hash, r.PostForm.Has("keep"))
	if errors.Is(err, ErrCode) {
		p.keep(p.Timeline.Append(ctx, postern.Event{
			Kind: postern.EventPersonRecovered, Outcome: postern.Refused, Person: who.Name, Address: p.peer(r), Reason: "wrong recovery code",
		}))
	}
	return who, made, off, err
}

// recoveredEvent is what the timeline says of a recovery.
func (p *Portal) recoveredEvent(r *request, person, how string) postern.Event {
	return postern.Event{Kind: postern.EventPersonRecovered, Outcome: postern.OK, Person: person, Address: p.peer(r), Reason: how}
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
	_, err = p.Links.Recover(ctx, postern.Actor{}, who)
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

// newRecoveryCodes replaces a person's recovery codes.
func (p *Portal) newRecoveryCodes(r *request) error {
	codes, kept := newCodes()
	e := postern.Event{Kind: postern.EventPortalCodes, Outcome: postern.OK, Person: r.who.Name, Address: p.peer(r), Count: recoveryCodes}
	if err := p.Store.PutRecoveryCodes(r.Context(), p.actor(r), r.who.Name, kept, p.now(), e); err != nil {
		return err
	}
	p.render(r, 200, "recovery", page{Title: "Recovery codes", Nav: "recovery", Data: map[string]any{"Left": len(codes), "Codes": codes}})
	return nil
}
