package passkey

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/postern-project/postern"
)

const (
	purposeAdd    = "passkey add"     // of a sealed challenge; its name is the person's
	purposeSignIn = "passkey sign-in" // its name is what the caller binds the sign-in to

	maxState    = 8 << 10  // bytes of a sealed challenge
	maxResponse = 64 << 10 // bytes of a browser's response
)

// Errors that a person can act on.
var (
	errOld = postern.Errorf(postern.Invalid, "This request is too old, or not yours.").
		WithHint("Start again.")
	errResponse = postern.Errorf(postern.Denied, "The browser's answer does not prove a passkey.").
			WithHint("Start again.")
)

// BeginAdd begins the registration of a passkey. It returns the options for the
// browser, JSON of PublicKeyCredentialCreationOptions, and the state that FinishAdd needs.
func (p *Party) BeginAdd(ctx context.Context, who postern.Person) (options []byte, state string, err error) {
	keys, err := p.store.PasskeysOf(ctx, who.Name)
	if err != nil {
		return nil, "", err
	}
	u := user{p.handle(who.Name), who, keys}
	creation, session, err := p.web.BeginRegistration(u,
		webauthn.WithExclusions(webauthn.Credentials(u.WebAuthnCredentials()).CredentialDescriptors()))
	if err != nil {
		return nil, "", postern.Errorf(postern.Internal, "a passkey cannot be asked for: %w", err)
	}
	return p.begun(creation.Response, session, purposeAdd, who.Name)
}

// FinishAdd checks the browser's response, JSON of a RegistrationResponse, and adds the
// passkey to the actor. It fails with [postern.Invalid] for a state that is too old or
// of another person, with [postern.Denied] for a response that does not prove a passkey,
// and as [Store.AddPasskey] does.
func (p *Party) FinishAdd(ctx context.Context, by postern.Actor, label, state string, response []byte) error {
	session, err := p.session(purposeAdd, by.Person, state)
	if err != nil {
		return err
	}
	if len(response) > maxResponse {
		return errResponse
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return errResponse
	}
	u := user{handle: p.handle(by.Person), person: postern.Person{Name: by.Person}}
	c, err := p.web.CreateCredential(u, session, parsed)
	if err != nil {
		return errResponse
	}
	k := Passkey{
		Credential: postern.Credential{Kind: postern.Passkey, ID: ID(c.ID), Person: by.Person, Label: label},
		Raw:        c.ID, PublicKey: c.PublicKey, Counter: c.Authenticator.SignCount, AAGUID: c.Authenticator.AAGUID,
		Synced: c.Flags.BackupEligible,
	}
	for _, t := range c.Transport {
		k.Transports = append(k.Transports, string(t))
	}
	return p.store.AddPasskey(ctx, by, k, use(session), postern.Event{
		Kind: postern.EventPasskeyAdded, Outcome: postern.OK, Person: by.Person, Address: by.Address, Object: k.ID,
		Links: []postern.Link{k.Link()},
	})
}

// BeginSignIn begins a sign-in by any passkey. It returns the options for the browser,
// JSON of PublicKeyCredentialRequestOptions, and the state that FinishSignIn needs with
// the same bound.
func (p *Party) BeginSignIn(_ context.Context, bound string) (options []byte, state string, err error) {
	assertion, session, err := p.web.BeginDiscoverableLogin()
	if err != nil {
		return nil, "", postern.Errorf(postern.Internal, "a passkey cannot be asked for: %w", err)
	}
	return p.begun(assertion.Response, session, purposeSignIn, bound)
}

// FinishSignIn checks the browser's response, JSON of an AuthenticationResponse, and
// returns whose passkey signed it. It fails with [postern.Invalid] for a state that is
// too old or bound to something else, and with [postern.Denied] for a response that
// does not prove an active passkey of an active person.
func (p *Party) FinishSignIn(ctx context.Context, bound, state string, response []byte) (postern.Credential, error) {
	var k Passkey
	session, err := p.session(purposeSignIn, bound, state)
	if err != nil {
		return k.Credential, err
	}
	if len(response) > maxResponse {
		return k.Credential, errResponse
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return k.Credential, errResponse
	}
	var unavailable error
	_, c, err := p.web.ValidatePasskeyLogin(func(raw, _ []byte) (webauthn.User, error) {
		var who postern.Person
		k, who, unavailable = p.store.Passkey(ctx, ID(raw))
		return user{p.handle(k.Person), who, []Passkey{k}}, unavailable
	}, session, parsed)
	switch {
	case unavailable != nil && postern.CodeOf(unavailable) != postern.NotFound:
		return postern.Credential{}, unavailable
	case err != nil:
		return postern.Credential{}, errResponse
	}
	err = p.store.UsePasskey(ctx, k.ID, c.Authenticator.SignCount, use(session))
	return k.Credential, err
}

// begun returns what the browser needs and keeps.
func (p *Party) begun(options any, session *webauthn.SessionData, purpose, name string) ([]byte, string, error) {
	o, err := json.Marshal(options)
	if err != nil {
		return nil, "", err
	}
	b, err := json.Marshal(session)
	if err != nil {
		return nil, "", err
	}
	sealed, err := p.seal.Seal(purpose, name, b)
	return o, base64.RawURLEncoding.EncodeToString(sealed), err
}

// session returns the challenge that a browser kept.
func (p *Party) session(purpose, name, state string) (s webauthn.SessionData, err error) {
	if len(state) > maxState {
		return s, errOld
	}
	sealed, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil {
		return s, errOld
	}
	b, err := p.seal.Unseal(purpose, name, sealed)
	if err != nil {
		return s, errOld
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if s.Expires.IsZero() || !p.now().Before(s.Expires) {
		return s, errOld
	}
	return s, nil
}

func use(s webauthn.SessionData) Use {
	return Use{Challenge: sha256.Sum256([]byte(s.Challenge)), Expires: s.Expires}
}
