package portal

import (
	"context"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"rsc.io/qr"
)

// Keyring adds a person's credentials other than client certificates. Its changes
// are on the timeline when a method returns. Errors with a code other than Internal
// may be shown to the person. It is safe for concurrent use.
type Keyring interface {
	// RegisterYubiKey assigns a YubiKey to the actor, who proves possession by a
	// code that the key typed.
	RegisterYubiKey(ctx context.Context, by postern.Actor, label, typed string) error
	// NewTOTP makes a secret for an authenticator app. Codes are not accepted until
	// AddTOTP is called with what NewTOTP returned.
	NewTOTP(ctx context.Context, person, label, issuer string) (PendingTOTP, error)
	// AddTOTP adds the app to the actor, if the code proves that the app has the
	// secret. If the code was wrong, it fails with Denied and returns the app, to be
	// tried again.
	AddTOTP(ctx context.Context, by postern.Actor, token, code, issuer string) (PendingTOTP, error)
	// AddACMEKey makes an external account binding key (RFC 8555, 7.3.4). The key is
	// returned here only, and id names it afterwards.
	AddACMEKey(ctx context.Context, by postern.Actor, label string) (id, key string, err error)
	ACMEKeys(ctx context.Context, person string) ([]ACMEKey, error)
	// SetACMEKey disables or enables a key, and the account that it bound.
	SetACMEKey(ctx context.Context, by postern.Actor, id string, enabled bool) error
	// IssueSSH issues a certificate for an SSH key, given as a line of a .pub file.
	// The configured rules decide its lifetime and its principals.
	IssueSSH(ctx context.Context, by postern.Actor, line string) (SSHCertificate, error)
	// RevokeSSH revokes one of the actor's SSH certificates. It fails with NotFound
	// if the actor has no such certificate.
	RevokeSSH(ctx context.Context, by postern.Actor, serial string) error
}

// PendingTOTP is an authenticator app whose first code is still to come.
type PendingTOTP struct {
	Token string // the sealed secret for a form field; valid for this person, for a short time
	URL   string // otpauth:, with the secret
	Label string
}

// SSHCertificate is an SSH user certificate that was just issued.
type SSHCertificate struct {
	Line       string // of the file KEY-cert.pub
	Accounts   []string
	Expires    time.Time
	KnownHosts string // lines for known_hosts(5) that trust the host CA
}

// ACMEKey is a key that binds an ACME account to a person.
type ACMEKey struct {
	ID, Label string
	Account   string // that it is bound to; "" if none yet
	Created   time.Time
	Disabled  bool
}

const keysPerHour = 30 // attempts of a person to add a key

func (p *Portal) keys(r *request) error { return p.renderKeys(r, 200, nil) }

// renderKeys lists the person's credentials other than client certificates, with
// forms to add more.
func (p *Portal) renderKeys(r *request, status int, errs map[string]string) error {
	all, err := p.People.CredentialsOf(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	data := map[string]any{"CanAdd": p.Keyring != nil, "Passkeys": p.Passkeys != nil}
	byKind := map[string][]postern.Credential{}
	for _, c := range all {
		switch c.Kind {
		case postern.YubiKey, postern.TOTP, postern.HOTP:
			byKind["OTP"] = append(byKind["OTP"], c)
		case postern.SSHKey, postern.SSHCertificate:
			byKind["SSH"] = append(byKind["SSH"], c)
		}
	}
	data["OTP"], data["SSH"] = byKind["OTP"], byKind["SSH"]
	if p.Keyring != nil {
		if data["ACME"], err = p.Keyring.ACMEKeys(r.Context(), r.who.Name); err != nil {
			return err
		}
	}
	pg := page{Title: "Keys", Nav: "keys", Errors: errs, Data: data}
	if errs != nil {
		pg.Values = map[string]string{"label": r.PostForm.Get("label"), "public_key": r.PostForm.Get("public_key")}
	}
	p.render(r, status, "keys", pg)
	return nil
}

// keyStatus disables or enables one of the person's own keys.
func (p *Portal) keyStatus(r *request) error {
	status, ok := map[string]postern.CredentialStatus{
		"disable": postern.CredentialDisabled,
		"enable":  postern.CredentialActive,
	}[r.PostForm.Get("do")]
	kind := postern.CredentialKind(r.PostForm.Get("kind"))
	if !ok || !slices.Contains([]postern.CredentialKind{postern.YubiKey, postern.TOTP, postern.HOTP, postern.SSHKey},
		kind) {
		return postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	all, err := p.People.CredentialsOf(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(c postern.Credential) bool {
		return c.Kind == kind && c.ID == r.PostForm.Get("id")
	})
	if i < 0 || all[i].Status == postern.CredentialRevoked {
		return postern.Errorf(postern.NotFound, "You have no such key.")
	}
	if err := p.People.SetCredentialStatus(r.Context(), p.actor(r), kind, all[i].ID, status,
		p.keyEvent(r, all[i], status)); err != nil {
		return err
	}
	p.redirect(r, "/keys?done="+string(status))
	return nil
}

func (p *Portal) keyEvent(r *request, c postern.Credential, s postern.CredentialStatus) postern.Event {
	return postern.Event{
		Kind: postern.EventOTPKeyChanged, Outcome: postern.OK, Person: c.Person, Address: p.peer(r), Object: c.ID,
		Links: []postern.Link{c.Link()}, Details: map[string]string{"status": string(s)},
	}
}

// adding reads the name of a key that is to be added. It fails where no keys can be
// added, and after too many tries.
func (p *Portal) adding(r *request) (string, error) {
	if p.Keyring == nil {
		return "", postern.Errorf(postern.NotFound, "Keys are not added here.")
	}
	label, err := labelIn(r)
	if err != nil {
		return "", err
	}
	return label, p.limit(r.Context(), "keys/"+r.who.Name, keysPerHour, time.Hour)
}

// keyWrong shows the page of keys again, with what is wrong beside a field.
func (p *Portal) keyWrong(r *request, field string, err error) error {
	fe, ok := asForm(err)
	if !ok {
		fe, ok = asForm(beside(field, err))
	}
	if !ok {
		return err
	}
	return p.renderKeys(r, fe.code.HTTPStatus(), fe.fields)
}

func (p *Portal) addYubiKey(r *request) error {
	label, err := p.adding(r)
	if err == nil {
		err = p.Keyring.RegisterYubiKey(r.Context(), p.actor(r), label, r.PostForm.Get("touch"))
	}
	if code := postern.CodeOf(err); err != nil && (code == postern.Denied || code == postern.NotFound) {
		err = wrong("touch",
			"The key was not added: it is unknown here, another person has it, or that code was used before.")
	}
	if err != nil {
		return p.keyWrong(r, "touch", err)
	}
	p.redirect(r, "/keys?done=added")
	return nil
}

// newTOTP shows a secret for an authenticator app, and asks for its first code.
func (p *Portal) newTOTP(r *request) error {
	label, err := p.adding(r)
	if err != nil {
		return p.keyWrong(r, "totp", err)
	}
	t, err := p.Keyring.NewTOTP(r.Context(), r.who.Name, label, p.Name)
	if err != nil {
		return p.keyWrong(r, "totp", err)
	}
	return p.renderTOTP(r, 200, t, nil)
}

func (p *Portal) renderTOTP(r *request, status int, t PendingTOTP, errs map[string]string) error {
	code, err := qr.Encode(t.URL, qr.M)
	if err != nil {
		return err
	}
	p.render(r, status, "totp", page{Title: "Show this to your app", Nav: "keys", Errors: errs, Data: map[string]any{
		"App": t, "Size": code.Size + 8, "Path": qrPath(code),
	}})
	return nil
}

// addTOTP adds the app that shows the right code.
func (p *Portal) addTOTP(r *request) error {
	_, err := p.adding(r)
	var t PendingTOTP
	if err == nil {
		t, err = p.Keyring.AddTOTP(r.Context(), p.actor(r), r.PostForm.Get("app"), r.PostForm.Get("first"), p.Name)
	}
	switch {
	case err != nil && postern.CodeOf(err) == postern.Denied && t.URL != "":
		return p.renderTOTP(r, postern.Denied.HTTPStatus(), t, map[string]string{"first": sentence(err)})
	case err != nil:
		return p.keyWrong(r, "totp", err)
	}
	p.redirect(r, "/keys?done=added")
	return nil
}

func (p *Portal) addACMEKey(r *request) error {
	label, err := p.adding(r)
	if err != nil {
		return p.keyWrong(r, "acme", err)
	}
	id, key, err := p.Keyring.AddACMEKey(r.Context(), p.actor(r), label)
	if err != nil {
		return p.keyWrong(r, "acme", err)
	}
	p.render(r, 200, "acmekey", page{
		Title: "A key for your ACME client", Nav: "keys",
		Data: map[string]string{"ID": id, "Key": key},
	})
	return nil
}

func (p *Portal) acmeKeyStatus(r *request) error {
	do := r.PostForm.Get("do")
	if p.Keyring == nil || do != "disable" && do != "enable" {
		return postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	if err := p.Keyring.SetACMEKey(r.Context(), p.actor(r), r.PostForm.Get("id"), do == "enable"); err != nil {
		return err
	}
	p.redirect(r, map[string]string{"disable": "/keys?done=disabled", "enable": "/keys?done=active"}[do])
	return nil
}

func (p *Portal) issueSSH(r *request) error {
	_, err := p.adding(r)
	var c SSHCertificate
	if err == nil {
		c, err = p.Keyring.IssueSSH(r.Context(), p.actor(r), r.PostForm.Get("public_key"))
	}
	if err != nil {
		return p.keyWrong(r, "public_key", err)
	}
	p.render(r, 200, "sshcert", page{Title: "A certificate for your SSH key", Nav: "keys", Data: c})
	return nil
}

func (p *Portal) revokeSSH(r *request) error {
	if p.Keyring == nil {
		return postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	if err := p.Keyring.RevokeSSH(r.Context(), p.actor(r), r.PostForm.Get("id")); err != nil {
		return err
	}
	p.redirect(r, "/keys?done=revoked")
	return nil
}
