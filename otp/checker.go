package otp

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
)

// Devices keeps what people have beside YubiKeys. Methods are safe for
// concurrent use, by several servers on one database too.
type Devices interface {
	// Guess tries a short code on the person's active devices. In one atomic
	// and durable step it checks that guessing is not locked, finds the
	// device whose code it is, moves that on if the code is new and appends
	// g.Events, or counts the wrong guess as [Lockout] asks.
	Guess(ctx context.Context, g Guess) (GuessResult, error)

	// Recover uses up the person's recovery code with that hash and appends
	// the events, all durable when it returns Accepted.
	Recover(ctx context.Context, person string, hash [32]byte, events []postern.Event) (Verdict, error)

	// Factors returns how many factors the person has or had, of all kinds: whose
	// only key was disabled is not somebody without one.
	Factors(ctx context.Context, person string) (int, error)
}

// People says who there is.
type People interface {
	// Person returns somebody, or fails with [postern.NotFound].
	Person(ctx context.Context, name string) (postern.Person, error)
}

// Outside is a validation service of somebody else's: a [Client]. Verify fails
// with [postern.NotFound] if none is configured.
type Outside interface {
	Verify(ctx context.Context, code Code) (Answer, error)
}

// CheckerConfig configures a [Checker]. The zero value works.
type CheckerConfig struct {
	// Mappings is a file in the format of /etc/yubikey_mappings that gives
	// accounts further keys; empty: none. It is read for every check.
	Mappings string
	// Peers are the servers of the sync protocol that a [Service] on the same
	// store tells of what is accepted here; see [Sync].
	Peers []string
	// Now tells the time; nil means the system's clock.
	Now func() time.Time
	// Logger hears of what cannot go on the timeline; nil means slog.Default.
	Logger *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c CheckerConfig) Validate() error { return nil }

// Checker answers one question: does this code prove this person? Whatever is
// wrong, who asks hears the same no; the timeline has the reason. It is safe
// for concurrent use.
type Checker struct {
	config  CheckerConfig
	keys    Keys
	devices Devices
	people  People
	outside Outside // nil: none
	log     Log
	refusal *coalesce.Writer
}

// NewChecker returns a checker. The outside service may be nil. Close it to
// have the last refusals written.
func NewChecker(c CheckerConfig, keys Keys, devices Devices, people People, outside Outside, log Log) *Checker {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Checker{config: c, keys: keys, devices: devices, people: people, outside: outside, log: log, refusal: refusals(log, c.Logger)}
}

// Close waits until the refusals under way are on the timeline.
func (c *Checker) Close() error {
	return c.refusal.Close()
}

// Attempt is somebody who typed a code.
type Attempt struct {
	User   string // the person's name, or an account's
	Person string // whose that account is; "" the person named as User
	Code   string // as typed
	// Password says that a password may precede a YubiKey's code in Code, and Digits
	// that it may precede six digits, too.
	Password, Digits bool
	Address          string // where from; may be empty
	Service          string // what for, as the timeline is to say: "sshd", "portal"
	// With goes on the timeline in the same step as the acceptance, with the
	// person and the credential that the code proved. Without a kind: nothing.
	With postern.Event
}

// Proof says what proved the person.
type Proof struct {
	Person     string
	Credential postern.Link
	// Password is how many bytes of Attempt.Code precede the code.
	Password int
	// Reason says why a code was refused, as the timeline does. It is for
	// administrators, never for who typed the code.
	Reason string
}

// refused is the one answer for all that is wrong with a code.
func refused() error { return postern.Errorf(postern.Denied, "the code was not accepted") }

// Check decides whether the code proves the person, and uses it up. It fails
// with [postern.Denied] for every code that does not, with [postern.NotFound]
// for somebody who has nothing to make a code with, and with another code when
// it cannot tell; none of these ever means yes. A Proof beside an error names
// what was presented, as far as that is known.
func (c *Checker) Check(ctx context.Context, a Attempt) (Proof, error) {
	t := &try{Checker: c, attempt: a}
	err := t.run(ctx)
	return t.proof, err
}

// Identify finds out whom a code proves, and uses it up: whoever holds the key,
// or nobody yet. It is for administrators who have a key in their hand.
func (c *Checker) Identify(ctx context.Context, a Attempt) (Proof, error) {
	t := &try{Checker: c, attempt: a, anybody: true}
	err := t.yubikey(ctx)
	return t.proof, err
}

// HasFactor reports whether the person or account has or had anything to make a
// code with.
func (c *Checker) HasFactor(ctx context.Context, user string) (bool, error) {
	n, err := c.devices.Factors(ctx, user)
	if err != nil || n > 0 {
		return n > 0, err
	}
	return len(c.mappings()[user]) > 0, nil
}

// mappings reads the mapping file. One that cannot be trusted maps nobody.
func (c *Checker) mappings() Mappings {
	if c.config.Mappings == "" {
		return nil
	}
	m, err := ReadMappings(c.config.Mappings)
	if err != nil {
		c.config.Logger.Error("the mapping file of YubiKeys does not count", postern.LogError, err)
		return nil
	}
	return m
}

// try is one attempt being checked.
type try struct {
	*Checker
	attempt Attempt
	proof   Proof
	mapped  Mappings
	anybody bool // whoever the key belongs to
}

func (t *try) run(ctx context.Context) error {
	t.mapped = t.mappings()
	person, err := t.people.Person(ctx, t.name())
	switch {
	case err == nil && !person.Active():
		t.proof.Person = person.Name
		return t.refuse(ctx, "person "+string(person.Status), "")
	case err == nil:
		t.proof.Person = person.Name
	case postern.CodeOf(err) != postern.NotFound:
		return err
	case len(t.mapped[t.attempt.User]) == 0:
		return t.refuse(ctx, "unknown person", "")
	}
	if err := t.skipPassword(ctx); err != nil {
		return err
	}
	if code, ok := digits(t.attempt.Code); ok {
		return t.guess(ctx, code)
	}
	if hash, ok := recoveryHash(t.proof.Person, t.attempt.Code); ok {
		return t.recover(ctx, hash)
	}
	return t.yubikey(ctx)
}

// name returns the name of the person whom the code is to prove.
func (t *try) name() string { return cmp.Or(t.attempt.Person, t.attempt.User) }

// event tells of the attempt, without the code.
func (t *try) event(outcome postern.Outcome, reason string) postern.Event {
	e := postern.Event{
		Time:    t.config.Now(),
		Kind:    postern.EventOTP,
		Outcome: outcome,
		Person:  t.proof.Person,
		Address: t.attempt.Address,
		Object:  t.proof.Credential.ID,
		Reason:  reason,
		Details: map[string]string{"service": t.attempt.Service},
	}
	if t.proof.Person == "" && t.attempt.User != "" {
		e.Details["account"] = t.attempt.User
	}
	if t.proof.Credential != (postern.Link{}) {
		e.Links = []postern.Link{t.proof.Credential}
	}
	return e
}

// accepted tells of the attempt that a credential's code decided.
func (t *try) accepted(by postern.Link) []postern.Event {
	e := t.event(postern.OK, "")
	e.Object, e.Links = by.ID, []postern.Link{by}
	with := t.attempt.With
	if with.Kind == "" {
		return []postern.Event{e}
	}
	with.Person, with.Links = t.proof.Person, append(slices.Clone(with.Links), by)
	return []postern.Event{e, with}
}

// refuse puts the reason on the timeline and returns the one answer.
func (t *try) refuse(ctx context.Context, reason, presented string) error {
	if presented != "" {
		t.proof.Credential = postern.Link{Kind: string(postern.YubiKey), ID: presented}
	}
	t.proof.Reason = reason
	t.refusal.Add(t.event(postern.Refused, reason))
	if t.anybody {
		return refused()
	}
	has, err := t.HasFactor(ctx, t.name())
	if err == nil && !has && len(t.mapped[t.attempt.User]) == 0 {
		return postern.Errorf(postern.NotFound, "there is nothing to make a code with")
	}
	return refused()
}

// guess tries a short code.
func (t *try) guess(ctx context.Context, code string) error {
	if t.proof.Person == "" {
		return t.refuse(ctx, "not a code", "")
	}
	r, err := t.devices.Guess(ctx, Guess{Person: t.proof.Person, Code: code, Now: t.config.Now(), Events: t.accepted})
	if err != nil {
		return err
	}
	if r.Device != nil {
		t.proof.Credential = postern.Link{Kind: string(r.Device.Kind), ID: r.Device.ID}
	}
	switch {
	case r.Verdict == Accepted:
		return nil
	case r.Verdict == Replayed:
		return t.refuse(ctx, "replayed code", "")
	case r.Devices == 0:
		return t.refuse(ctx, "no device for short codes", "")
	case !r.Until.IsZero():
		return t.refuse(ctx, "wrong code; no more are tried for a while", "")
	}
	return t.refuse(ctx, "wrong code", "")
}

// recover uses up a recovery code.
func (t *try) recover(ctx context.Context, hash [32]byte) error {
	if t.proof.Person == "" {
		return t.refuse(ctx, "not a code", "")
	}
	link := postern.Link{Kind: string(postern.RecoveryCode), ID: EncodeModhex(hash[:4])}
	verdict, err := t.devices.Recover(ctx, t.proof.Person, hash, t.accepted(link))
	switch {
	case err != nil:
		return err
	case verdict == Accepted:
		t.proof.Credential = link
		return nil
	case verdict == Replayed:
		return t.refuse(ctx, "replayed recovery code", "")
	}
	return t.refuse(ctx, "unknown recovery code", "")
}

// yubikey checks a YubiKey's code: with our own secret, or by the outside
// service for a key whose secret is there.
func (t *try) yubikey(ctx context.Context) error {
	key, token, reason, err := openCode(ctx, t.keys, t.attempt.Code)
	switch {
	case err != nil:
		return err
	case key == nil:
		return t.stranger(ctx, reason)
	}
	if t.anybody {
		t.proof.Person = key.Person
	}
	switch {
	case !t.mayUse(key):
		return t.refuse(ctx, "another person's key", key.PublicID)
	case reason == outsideKey && !key.Passes():
		return t.refuse(ctx, key.refusal(), key.PublicID)
	case reason == outsideKey:
		return t.askOutside(ctx, key.PublicID, true)
	case reason != "":
		return t.refuse(ctx, reason, key.PublicID)
	}
	return t.accept(ctx, key.PublicID, Last{Seq: token.Seq(), Timestamp: token.Timestamp, Nonce: newNonce(), Time: t.config.Now()})
}

// mayUse reports whether the key is the person's, or mapped to the account.
func (t *try) mayUse(key *Key) bool {
	return t.anybody || key.Person != "" && key.Person == t.proof.Person || t.mapped.Has(t.attempt.User, key.PublicID)
}

// stranger is for a key that is not ours: the mapping file may name it, then
// the outside service has the word.
func (t *try) stranger(ctx context.Context, reason string) error {
	for _, code := range Readings(t.attempt.Code) {
		if t.anybody && t.outside != nil || t.mapped.Has(t.attempt.User, code.PublicID) {
			return t.askOutside(ctx, code.PublicID, false)
		}
	}
	return t.refuse(ctx, reason, "")
}

// askOutside asks the outside service about a code of that key. For a key that
// is on our list the counter that it answers with is held against ours, so that
// a code counts once here whatever happens there.
func (t *try) askOutside(ctx context.Context, publicID string, listed bool) error {
	if t.outside == nil {
		return t.refuse(ctx, "key of an outside service, and none is configured", publicID)
	}
	var code Code
	for _, c := range Readings(t.attempt.Code) {
		if c.PublicID == publicID {
			code = c
			break
		}
	}
	a, err := t.outside.Verify(ctx, code)
	switch {
	case err != nil && postern.CodeOf(err) == postern.NotFound:
		return t.refuse(ctx, "key of an outside service, and none is configured", publicID)
	case err != nil:
		return err
	case a.Status == StatusBackendError, a.Status == StatusNotEnoughAnswers:
		return postern.Errorf(postern.Unavailable, "the outside validation service: %s", a.Status.Words())
	case a.Status != StatusOK:
		return t.refuse(ctx, "outside service: "+string(a.Status), publicID)
	case listed && !a.Counted:
		return postern.Errorf(postern.Unavailable, "the outside validation service does not tell the key's counters")
	case listed:
		return t.accept(ctx, publicID, Last{Seq: a.Seq, Timestamp: a.Timestamp, Nonce: newNonce(), Time: t.config.Now()})
	}
	t.proof.Credential = postern.Link{Kind: string(postern.YubiKey), ID: publicID}
	return t.log.Append(ctx, t.accepted(t.proof.Credential)...)
}

// accept uses the code up.
func (t *try) accept(ctx context.Context, publicID string, last Last) error {
	t.proof.Credential = postern.Link{Kind: string(postern.YubiKey), ID: publicID}
	use := Use{PublicID: publicID, Last: last, Events: t.accepted(t.proof.Credential), Peers: t.config.Peers}
	if !t.mapped.Has(t.attempt.User, publicID) {
		use.Person = t.proof.Person
	}
	verdict, _, err := t.keys.Accept(ctx, use)
	switch {
	case err != nil:
		return err
	case verdict == Replayed:
		return t.refuse(ctx, "replayed code", publicID)
	case verdict != Accepted:
		return t.refuse(ctx, "key or person no longer active", publicID)
	}
	return nil
}

// Registration is somebody who shows a YubiKey that is to become theirs.
type Registration struct {
	Person string
	Typed  string // the code, as the key typed it
	Label  string
	By     postern.Actor // who registers it
}

// Registry changes whose a key is, for [Checker.Register]. It fails with Denied
// once the credential of the actor is not valid any more.
type Registry interface {
	// AddKeys adds keys that are not known yet.
	AddKeys(ctx context.Context, by postern.Actor, keys []*Key, replace bool) error
	// ClaimKey gives a key to a person, unless it is somebody's.
	ClaimKey(ctx context.Context, by postern.Actor, publicID, person, label string) error
}

// Register gives a key to a person who proves to hold it, by one touch: a key
// whose secret we have and that is nobody's, or one that the outside service
// vouches for. It returns the key's public ID. A key that is somebody else's is
// [postern.Denied].
func (c *Checker) Register(ctx context.Context, r Registry, reg Registration) (string, error) {
	if len(reg.Label) > 64 {
		return "", postern.Errorf(postern.Invalid, "the name has more than 64 bytes")
	}
	t := &try{Checker: c, attempt: Attempt{User: reg.Person, Code: reg.Typed, Address: reg.By.Address, Service: "registration"}, proof: Proof{Person: reg.Person}}
	person, err := c.people.Person(ctx, reg.Person)
	if err != nil {
		return "", err
	}
	if !person.Active() {
		return "", t.refuse(ctx, "person "+string(person.Status), "")
	}
	readings := Readings(strings.TrimSpace(reg.Typed))
	if readings == nil {
		return "", postern.Errorf(postern.Invalid, "that is not what a YubiKey types").
			WithHint("put the cursor into the field and touch the key")
	}
	key, token, reason, err := openCode(ctx, c.keys, reg.Typed)
	switch {
	case err != nil:
		return "", err
	case key != nil && key.Person == reg.Person:
		return "", postern.Errorf(postern.Conflict, "this key is registered already")
	case key != nil && key.Person != "":
		return "", t.refuse(ctx, "another person's key", key.PublicID)
	case key != nil && reason == "":
		return key.PublicID, t.take(ctx, r, key.PublicID, token, reg)
	case key != nil && (reason != outsideKey || !key.Passes()):
		return "", t.refuse(ctx, reason, key.PublicID)
	}
	return t.vouched(ctx, r, readings[0], key, reg)
}

// take gives a key of ours, whose code opened, to the person.
func (t *try) take(ctx context.Context, r Registry, publicID string, token Token, reg Registration) error {
	verdict, _, err := t.keys.Accept(ctx, Use{
		PublicID: publicID,
		Last:     Last{Seq: token.Seq(), Timestamp: token.Timestamp, Nonce: newNonce(), Time: t.config.Now()},
		Events:   t.accepted(postern.Link{Kind: string(postern.YubiKey), ID: publicID}),
		Peers:    t.config.Peers,
	})
	if err != nil {
		return err
	}
	if verdict != Accepted {
		return t.refuse(ctx, "replayed code", publicID)
	}
	return r.ClaimKey(ctx, reg.By, publicID, reg.Person, reg.Label)
}

// vouched registers a key on the word of the outside service.
func (t *try) vouched(ctx context.Context, r Registry, code Code, key *Key, reg Registration) (string, error) {
	if t.outside == nil || !ValidPublicID(code.PublicID) {
		return "", t.refuse(ctx, "unknown key", "")
	}
	a, err := t.outside.Verify(ctx, code)
	switch {
	case err != nil && postern.CodeOf(err) == postern.NotFound:
		return "", t.refuse(ctx, "unknown key", code.PublicID)
	case err != nil:
		return "", err
	case a.Status != StatusOK:
		return "", t.refuse(ctx, "outside service: "+string(a.Status), code.PublicID)
	case key != nil:
		return code.PublicID, r.ClaimKey(ctx, reg.By, code.PublicID, reg.Person, reg.Label)
	}
	last := Never
	if a.Counted {
		last = Last{Seq: a.Seq, Timestamp: a.Timestamp, Time: t.config.Now()}
	}
	return code.PublicID, r.AddKeys(ctx, reg.By, []*Key{{PublicID: code.PublicID, Person: reg.Person, Label: reg.Label, Last: last}}, false)
}
