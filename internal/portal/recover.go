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

// newCodes returns recovery codes, 80 random bits each in base32, and their records
// to be stored. So many bits cannot be guessed, so tries are limited by IP address
// only: an attacker cannot lock a person out.
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

// hashCode returns the hash under which a recovery code is stored; case, spaces
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
	return page{Title: "Lost your certificate?", Nav: "recover", Data: map[string]bool{
		"Mail": p.RecoverByMail && p.Mail != nil, "Passkeys": p.Passkeys != nil,
	}}
}

// ErrCode says that a recovery code is not valid. It does not reveal whether the
// name or the code is wrong.
var ErrCode = postern.Errorf(postern.Denied, "The name or the code is wrong, or the code was used before.").
	WithHint("Each code can be used once. Try the next one on your list.")

// recover uses up a recovery code, revokes and disables what the person had, and
// shows the page to enrol.
func (p *Portal) recover(r *request) error {
	who, made, off, err := p.spendCode(r)
	if err != nil {
		p.invalid(r, beside("recovery", err), "recover", p.recoverForm())
		return nil
	}
	p.render(r, 200, "enrol", page{
		Title: "Get a new certificate", Nav: "recover",
		Done: "The code is accepted.",
		Data: enrolment{Code: made.Code, Person: who.Name, Email: who.Email, Minimum: minPassphrase, Off: off.Words()},
	})
	return nil
}

// spendCode finds the person by name or address and uses up the code. It does the
// same work if no person is found, so that its duration does not reveal that.
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
		who = postern.Person{} // has no codes, so any code is wrong
	}
	made, off, err := p.Links.withCode(ctx, p.actor(r), who,
		p.recoveredEvent(r, who.Name, "one of your recovery codes"), hash, r.PostForm.Has("keep"))
	if errors.Is(err, ErrCode) {
		p.logError(p.Timeline.Append(ctx, postern.Event{
			Kind: postern.EventPersonRecovered, Outcome: postern.Refused, Person: who.Name, Address: p.peer(r),
			Reason: "wrong recovery code",
		}))
	}
	return who, made, off, err
}

// recoveredEvent returns the event that records a recovery.
func (p *Portal) recoveredEvent(r *request, person, how string) postern.Event {
	return postern.Event{
		Kind: postern.EventPersonRecovered, Outcome: postern.OK, Person: person, Address: p.peer(r),
		Reason: how,
	}
}

// recoverByMail sends a link to the person's own address, where the
// configuration says that this is enough.
func (p *Portal) recoverByMail(r *request) error {
	if !p.RecoverByMail || p.Mail == nil {
		return postern.Errorf(postern.Denied, "Recovery by mail is not enabled here.").
			WithHint("Use a recovery code or another device, or ask an administrator.")
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
	p.logError(err)
	p.wakeMail()
}

func (p *Portal) recoveryPage(r *request) error {
	n, err := p.Store.RecoveryCodes(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	p.render(r, 200, "recovery", page{
		Title: "Recovery codes", Nav: "recovery",
		Data: map[string]any{"Left": n, "Codes": []string(nil)},
	})
	return nil
}

// newRecoveryCodes replaces a person's recovery codes.
func (p *Portal) newRecoveryCodes(r *request) error {
	codes, kept := newCodes()
	e := postern.Event{
		Kind: postern.EventPortalCodes, Outcome: postern.OK, Person: r.who.Name, Address: p.peer(r),
		Count: recoveryCodes,
	}
	if err := p.Store.PutRecoveryCodes(r.Context(), p.actor(r), r.who.Name, kept, p.now(), e); err != nil {
		return err
	}
	p.render(r, 200, "recovery", page{
		Title: "Recovery codes", Nav: "recovery",
		Data: map[string]any{"Left": len(codes), "Codes": codes},
	})
	return nil
}
