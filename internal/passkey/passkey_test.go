package passkey_test

import (
	"bytes"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/passkey"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

const origin, rpID = "https://id.example.com", "id.example.com"

// rig is a relying party over a real store, and dan's and eve's authenticators.
type rig struct {
	*passkey.Party
	db       *store.DB
	t        *testing.T
	dan, eve *posterntest.Authenticator
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db := storetest.Open(t)
	p, err := passkey.New(passkey.Config{URL: origin, Name: "Example", Secret: bytes.Repeat([]byte{7}, 32)},
		db.Passkeys(), db)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Party: p, db: db, t: t}
	r.dan, r.eve = r.person("dan"), r.person("eve")
	return r
}

// person is an authenticator with a passkey of a new person.
func (r *rig) person(name string) *posterntest.Authenticator {
	r.t.Helper()
	if err := r.db.People().AddPerson(r.t.Context(), postern.Person{Name: name}); err != nil {
		r.t.Fatal(err)
	}
	a := posterntest.NewAuthenticator(r.t, origin, rpID)
	options, state := r.beginAdd(name)
	if err := r.FinishAdd(r.t.Context(), postern.Actor{Person: name}, "key", state, a.Make(options)); err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rig) beginAdd(name string) ([]byte, string) {
	r.t.Helper()
	options, state, err := r.BeginAdd(r.t.Context(), postern.Person{Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return options, state
}

func (r *rig) begin(bound string) ([]byte, string) {
	r.t.Helper()
	options, state, err := r.BeginSignIn(r.t.Context(), bound)
	if err != nil {
		r.t.Fatal(err)
	}
	return options, state
}

// signIn signs in by an authenticator.
func (r *rig) signIn(a *posterntest.Authenticator) (postern.Credential, error) {
	options, state := r.begin("here")
	return r.FinishSignIn(r.t.Context(), "here", state, a.Sign(options))
}

func (r *rig) refused(what string, code postern.Code, err error) {
	r.t.Helper()
	if err == nil || postern.CodeOf(err) != code {
		r.t.Errorf("%s: %v, want %v", what, err, code)
	}
}

func TestSignIn(t *testing.T) {
	r := newRig(t)
	for _, want := range []string{"dan", "eve", "dan"} {
		c, err := r.signIn(map[string]*posterntest.Authenticator{"dan": r.dan, "eve": r.eve}[want])
		if err != nil || c.Person != want || c.Kind != postern.Passkey {
			t.Errorf("%s's passkey: %+v, %v", want, c, err)
		}
	}
	uncounted := posterntest.NewAuthenticator(t, origin, rpID)
	uncounted.Step, uncounted.Flags = 0, uncounted.Flags|posterntest.BackupEligible
	options, state := r.beginAdd("dan")
	if err := r.FinishAdd(t.Context(), postern.Actor{Person: "dan"}, "phone", state,
		uncounted.Make(options)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.signIn(uncounted); err != nil {
			t.Error("a passkey without a counter:", err)
		}
	}
}

// TestLies changes one thing of a right sign-in at a time.
func TestLies(t *testing.T) {
	r := newRig(t)
	for what, lie := range map[string]func(a *posterntest.Authenticator){
		"another origin":             func(a *posterntest.Authenticator) { a.Origin = "https://id.example.net" },
		"an origin of plain HTTP":    func(a *posterntest.Authenticator) { a.Origin = "http://id.example.com" },
		"an origin below":            func(a *posterntest.Authenticator) { a.Origin = "https://evil.id.example.com" },
		"an origin at another port":  func(a *posterntest.Authenticator) { a.Origin += ":8443" },
		"another relying party":      func(a *posterntest.Authenticator) { a.RPID = "example.com" },
		"no user verification":       func(a *posterntest.Authenticator) { a.Flags &^= posterntest.UserVerified },
		"no user presence":           func(a *posterntest.Authenticator) { a.Flags &^= posterntest.UserPresent },
		"another backup eligibility": func(a *posterntest.Authenticator) { a.Flags |= posterntest.BackupEligible },
		"the same counter":           func(a *posterntest.Authenticator) { a.Step = 0 },
		"a counter that goes back":   func(a *posterntest.Authenticator) { a.Step, a.Count = 0, 0 },
		"a passkey that is not known": func(a *posterntest.Authenticator) {
			*a = *posterntest.NewAuthenticator(t, origin, rpID)
		},
		"another person's passkey": func(a *posterntest.Authenticator) { a.Pose(r.eve, true) },
		"another person's handle":  func(a *posterntest.Authenticator) { a.Pose(r.eve, false) },
	} {
		a := *r.dan
		lie(&a)
		_, err := r.signIn(&a)
		r.refused(what, postern.Denied, err)
	}
	if _, err := r.signIn(r.dan); err != nil {
		t.Error("after all the lies:", err)
	}
}

// TestRegistrationLies changes one thing of a right registration at a time.
func TestRegistrationLies(t *testing.T) {
	r := newRig(t)
	for what, lie := range map[string]func(a *posterntest.Authenticator){
		"another origin":        func(a *posterntest.Authenticator) { a.Origin = "https://id.example.net" },
		"another relying party": func(a *posterntest.Authenticator) { a.RPID = "example.com" },
		"no user verification":  func(a *posterntest.Authenticator) { a.Flags &^= posterntest.UserVerified },
	} {
		a := posterntest.NewAuthenticator(t, origin, rpID)
		lie(a)
		options, state := r.beginAdd("dan")
		r.refused(what, postern.Denied,
			r.FinishAdd(t.Context(), postern.Actor{Person: "dan"}, "", state, a.Make(options)))
	}
	options, state := r.beginAdd("dan")
	response := posterntest.NewAuthenticator(t, origin, rpID).Make(options)
	r.refused("another person's request", postern.Invalid,
		r.FinishAdd(t.Context(), postern.Actor{Person: "eve"}, "", state, response))
	r.refused("a credential that is not valid", postern.Denied, r.FinishAdd(t.Context(), postern.Actor{
		Person: "dan", Credential: postern.Link{Kind: "x509", ID: "1234"},
	}, "", state, response))
	if err := r.FinishAdd(t.Context(), postern.Actor{Person: "dan"}, "", state, response); err != nil {
		t.Fatal(err)
	}
	r.refused("the same again", postern.Denied,
		r.FinishAdd(t.Context(), postern.Actor{Person: "dan"}, "", state, response))
	options, state = r.beginAdd("eve")
	r.refused("a passkey that is known", postern.Conflict,
		r.FinishAdd(t.Context(), postern.Actor{Person: "eve"}, "", state, r.dan.Make(options)))
}

func TestChallengeIsUsedOnce(t *testing.T) {
	r := newRig(t)
	options, state := r.begin("here")
	response := r.dan.Sign(options)
	_, err := r.FinishSignIn(t.Context(), "there", state, response)
	r.refused("bound to something else", postern.Invalid, err)
	_, err = r.FinishSignIn(t.Context(), "here", state[:len(state)-2], response)
	r.refused("a state that was changed", postern.Invalid, err)
	_, other := r.begin("here")
	_, err = r.FinishSignIn(t.Context(), "here", other, response)
	r.refused("another challenge", postern.Denied, err)
	if _, err := r.FinishSignIn(t.Context(), "here", state, response); err != nil {
		t.Fatal(err)
	}
	_, err = r.FinishSignIn(t.Context(), "here", state, response)
	r.refused("replayed", postern.Denied, err)
	// A clone that signs the same challenge once more, with a counter that grows.
	_, err = r.FinishSignIn(t.Context(), "here", state, r.dan.Sign(options))
	r.refused("signed once more", postern.Denied, err)
	options, state = r.begin("here")
	response = r.dan.Sign(options)
	r.Advance(passkey.Life)
	_, err = r.FinishSignIn(t.Context(), "here", state, response)
	r.refused("too late", postern.Invalid, err)
}

func TestSwitchedOff(t *testing.T) {
	r := newRig(t)
	own, err := r.db.Passkeys().PasskeysOf(t.Context(), "dan")
	if err != nil || len(own) != 1 {
		t.Fatal(own, err)
	}
	set := func(s postern.CredentialStatus) {
		t.Helper()
		if err := r.db.People().SetCredentialStatus(t.Context(), postern.Passkey, own[0].ID, s); err != nil {
			t.Fatal(err)
		}
	}
	set(postern.CredentialDisabled)
	_, err = r.signIn(r.dan)
	r.refused("disabled", postern.Denied, err)
	set(postern.CredentialActive)
	if _, err := r.signIn(r.dan); err != nil {
		t.Error("enabled again:", err)
	}
	if err := r.db.People().SetPersonStatus(t.Context(), "dan", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	_, err = r.signIn(r.dan)
	r.refused("of a suspended person", postern.Denied, err)
	if err := r.db.People().SetPersonStatus(t.Context(), "dan", postern.PersonActive); err != nil {
		t.Fatal(err)
	}
	set(postern.CredentialRevoked)
	_, err = r.signIn(r.dan)
	r.refused("removed", postern.Denied, err)
	if left, err := r.db.Passkeys().PasskeysOf(t.Context(), "dan"); err != nil || len(left) != 0 {
		t.Error("a removed passkey is listed:", left, err)
	}
}

func TestOnlyNamesHavePasskeys(t *testing.T) {
	for _, url := range []string{"https://192.0.2.1", "https://[2001:db8::1]:8443", "http://id.example.com", "id"} {
		if _, err := passkey.New(passkey.Config{URL: url}, nil, nil); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// FuzzResponse has any bytes as the browser's answers: none proves a passkey.
func FuzzResponse(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add(posterntest.NewAuthenticator(f, origin, rpID).Sign([]byte(`{"challenge":"AAAA"}`)))
	f.Add(posterntest.NewAuthenticator(f, origin, rpID).Make([]byte(`{"challenge":"AAAA","user":{"id":"AAAA"}}`)))
	db := storetest.Open(f)
	p, err := passkey.New(passkey.Config{URL: origin, Name: "Example"}, db.Passkeys(), db)
	if err != nil {
		f.Fatal(err)
	}
	_, add, err := p.BeginAdd(f.Context(), postern.Person{Name: "dan"})
	if err != nil {
		f.Fatal(err)
	}
	_, signIn, err := p.BeginSignIn(f.Context(), "here")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		if err := p.FinishAdd(t.Context(), postern.Actor{Person: "dan"}, "", add, response); err == nil {
			t.Error("a passkey was added")
		}
		if _, err := p.FinishSignIn(t.Context(), "here", signIn, response); err == nil {
			t.Error("signed in")
		}
	})
}
