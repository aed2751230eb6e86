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

// Authenticators stores people's authenticators (TOTP and HOTP) and backup codes.
// Methods are safe for concurrent use, also by several servers on one database.
type Authenticators interface {
	// Guess tries a short code on the person's active authenticators. In one atomic
	// and durable step it checks that the person is not locked out and finds the
	// authenticator that made the code. If the code is new, it advances the
	// authenticator's moving factor and appends g.Events. If the code is wrong, it
	// counts the guess for [Lockout].
	Guess(ctx context.Context, g Guess) (GuessResult, error)

	// UseBackupCode uses up the person's backup code with that hash and appends the
	// events. Both are durable when it returns Accepted.
	UseBackupCode(ctx context.Context, person string, hash [32]byte, events []postern.Event) (Verdict, error)

	// Factors returns how many factors the person has, of all kinds and in any status:
	// a person whose only key is disabled has one.
	Factors(ctx context.Context, person string) (int, error)
}

// People stores people.
type People interface {
	// Person returns a person, or fails with [postern.NotFound].
	Person(ctx context.Context, name string) (postern.Person, error)
}

// Upstream is another validation service, which has the secrets of some keys: a
// [Client]. Verify fails with [postern.NotFound] if none is configured.
type Upstream interface {
	Verify(ctx context.Context, code Code) (Answer, error)
}

// CheckerConfig configures a [Checker]. The zero value works.
type CheckerConfig struct {
	// Mappings is a file in the format of /etc/yubikey_mappings that assigns
	// further keys to accounts; empty: none. It is read for every check.
	Mappings string
	// Peers are the servers of the sync protocol to which a [Service] on the same
	// store sends the codes that are accepted here; see [Sync].
	Peers []string
	// Now returns the time; nil means the system's clock.
	Now func() time.Time
	// Logger logs failures to write to the timeline; nil means slog.Default.
	Logger *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c CheckerConfig) Validate() error { return nil }

// Checker checks that a code proves a person. All wrong codes fail with the same
// error; the reason is on the timeline. It is safe for concurrent use.
type Checker struct {
	config         CheckerConfig
	keys           Keys
	authenticators Authenticators
	people         People
	upstream       Upstream // nil: none
	log            Log
	refusal        *coalesce.Writer
}

// NewChecker returns a checker. The upstream service may be nil. Close the checker to
// have the last refusals written.
func NewChecker(c CheckerConfig, keys Keys, as Authenticators, people People, up Upstream, log Log) *Checker {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Checker{
		config: c, keys: keys, authenticators: as, people: people, upstream: up, log: log,
		refusal: refusals(log, c.Logger),
	}
}

// Close waits until the pending refusals are on the timeline.
func (c *Checker) Close() error {
	return c.refusal.Close()
}

// Attempt is one code that was typed.
type Attempt struct {
	User   string // the person's name, or an account's
	Person string // the person whose account User is; "": the person named User
	Code   string // as typed
	// Password says that a password may precede a YubiKey's code in Code, and Digits
	// that it may precede six digits, too.
	Password, Digits bool
	Address          string // IP address that the code came from; may be empty
	Service          string // what it is checked for, on the timeline: "sshd", "portal"
	// With is appended to the timeline together with the acceptance, with the person
	// and the credential that the code proved. If it has no kind, nothing is.
	With postern.Event
}

// Proof says which credential proved which person.
type Proof struct {
	Person     string
	Credential postern.Link
	// Password is the number of bytes of Attempt.Code that precede the code.
	Password int
	// Reason is why a code was refused, as on the timeline. It is for administrators,
	// never for the person who typed the code.
	Reason string
}

// refused is the error for all wrong codes.
func refused() error { return postern.Errorf(postern.Denied, "the code was not accepted") }

// Check checks that the code proves the person, and uses it up. It fails with
// [postern.Denied] for every other code, with [postern.NotFound] for a person who has
// no factor, and with another code if it cannot decide. A Proof that is returned with
// an error has the credential that was presented, as far as it is known.
func (c *Checker) Check(ctx context.Context, a Attempt) (Proof, error) {
	t := &try{Checker: c, attempt: a}
	err := t.run(ctx)
	return t.proof, err
}

// Identify returns the person whom a YubiKey's code proves, "" if the key is assigned
// to none, and uses the code up. It is for administrators who have the key.
func (c *Checker) Identify(ctx context.Context, a Attempt) (Proof, error) {
	t := &try{Checker: c, attempt: a, anyPerson: true}
	err := t.yubikey(ctx)
	return t.proof, err
}

// HasFactor reports whether the person or account has a factor, in any status.
func (c *Checker) HasFactor(ctx context.Context, user string) (bool, error) {
	n, err := c.authenticators.Factors(ctx, user)
	if err != nil || n > 0 {
		return n > 0, err
	}
	return len(c.mappings()[user]) > 0, nil
}

// mappings reads the mapping file. A file that cannot be trusted is ignored.
func (c *Checker) mappings() Mappings {
	if c.config.Mappings == "" {
		return nil
	}
	m, err := ReadMappings(c.config.Mappings)
	if err != nil {
		c.config.Logger.Error("the mapping file of YubiKeys is ignored", postern.LogError, err)
		return nil
	}
	return m
}

// try is one attempt being checked.
type try struct {
	*Checker
	attempt   Attempt
	proof     Proof
	mapped    Mappings
	anyPerson bool // whether the key may belong to any person
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
	if hash, ok := backupHash(t.proof.Person, t.attempt.Code); ok {
		return t.backupCode(ctx, hash)
	}
	return t.yubikey(ctx)
}

// name returns the name of the person whom the code is to prove.
func (t *try) name() string { return cmp.Or(t.attempt.Person, t.attempt.User) }

// event returns the event that records the attempt, without the code.
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

// accepted returns the events that record the acceptance of a credential's code.
func (t *try) accepted(by postern.Link) []postern.Event {
	e := t.event(postern.OK, "")
	e.Object, e.Links = by.ID, []postern.Link{by}
	with := t.attempt.With
	if with.Kind == "" {
		return []postern.Event{e}
	}
	for _, l := range with.Links {
		if l.Kind == postern.LinkLogin {
			e.Links = append(e.Links, l)
		}
	}
	with.Person, with.Links = t.proof.Person, append(slices.Clone(with.Links), by)
	return []postern.Event{e, with}
}

// refuse records the reason on the timeline and returns the error for wrong codes.
func (t *try) refuse(ctx context.Context, reason, presented string) error {
	if presented != "" {
		t.proof.Credential = postern.Link{Kind: string(postern.YubiKey), ID: presented}
	}
	t.proof.Reason = reason
	t.refusal.Add(t.event(postern.Refused, reason))
	if t.anyPerson {
		return refused()
	}
	has, err := t.HasFactor(ctx, t.name())
	if err == nil && !has && len(t.mapped[t.attempt.User]) == 0 {
		return postern.Errorf(postern.NotFound, "there is no second factor for this account")
	}
	return refused()
}

// guess tries a short code.
func (t *try) guess(ctx context.Context, code string) error {
	if t.proof.Person == "" {
		return t.refuse(ctx, "not a code", "")
	}
	r, err := t.authenticators.Guess(ctx, Guess{
		Person: t.proof.Person, Code: code, Now: t.config.Now(),
		Events: t.accepted,
	})
	if err != nil {
		return err
	}
	if a := r.Authenticator; a != nil {
		t.proof.Credential = postern.Link{Kind: string(a.Kind), ID: a.ID}
	}
	switch {
	case r.Verdict == Accepted:
		return nil
	case r.Verdict == Replayed:
		return t.refuse(ctx, "replayed code", "")
	case r.Authenticators == 0:
		return t.refuse(ctx, "no authenticator", "")
	case !r.Until.IsZero():
		return t.refuse(ctx, "wrong code; locked out for a while", "")
	}
	return t.refuse(ctx, "wrong code", "")
}

// backupCode uses up a backup code.
func (t *try) backupCode(ctx context.Context, hash [32]byte) error {
	if t.proof.Person == "" {
		return t.refuse(ctx, "not a code", "")
	}
	link := postern.Link{Kind: string(postern.BackupCode), ID: EncodeModhex(hash[:4])}
	verdict, err := t.authenticators.UseBackupCode(ctx, t.proof.Person, hash, t.accepted(link))
	switch {
	case err != nil:
		return err
	case verdict == Accepted:
		t.proof.Credential = link
		return nil
	case verdict == Replayed:
		return t.refuse(ctx, "replayed backup code", "")
	}
	return t.refuse(ctx, "unknown backup code", "")
}

// yubikey checks a YubiKey's code: with the key's secret, or, for a key whose secret is
// not here, by the upstream service.
func (t *try) yubikey(ctx context.Context) error {
	key, token, reason, err := openCode(ctx, t.keys, t.attempt.Code)
	switch {
	case err != nil:
		return err
	case key == nil:
		return t.unlisted(ctx, reason)
	}
	if t.anyPerson {
		t.proof.Person = key.Person
	}
	switch {
	case !t.mayUse(key):
		return t.refuse(ctx, "another person's key", key.PublicID)
	case reason == upstreamKey && !key.Active():
		return t.refuse(ctx, key.refusal(), key.PublicID)
	case reason == upstreamKey:
		return t.askUpstream(ctx, key.PublicID, true)
	case reason != "":
		return t.refuse(ctx, reason, key.PublicID)
	}
	return t.accept(ctx, key.PublicID, Last{
		Seq: token.Seq(), Timestamp: token.Timestamp, Nonce: newNonce(),
		Time: t.config.Now(),
	})
}

// mayUse reports whether the key is the person's, or mapped to the account.
func (t *try) mayUse(key *Key) bool {
	return t.anyPerson || key.Person != "" && key.Person == t.proof.Person ||
		t.mapped.Has(t.attempt.User, key.PublicID)
}

// unlisted checks the code of a key that is not in the store. If the mapping file names
// the key, the upstream service decides.
func (t *try) unlisted(ctx context.Context, reason string) error {
	for _, code := range Readings(t.attempt.Code) {
		if t.anyPerson && t.upstream != nil || t.mapped.Has(t.attempt.User, code.PublicID) {
			return t.askUpstream(ctx, code.PublicID, false)
		}
	}
	return t.refuse(ctx, reason, "")
}

// askUpstream asks the upstream service about a code of that key. For a key that is in
// the store, the counter in the answer must be above the stored one, so that a code is
// accepted once here whatever happens there.
func (t *try) askUpstream(ctx context.Context, publicID string, listed bool) error {
	const none = "key of an upstream service, and none is configured"
	if t.upstream == nil {
		return t.refuse(ctx, none, publicID)
	}
	var code Code
	for _, c := range Readings(t.attempt.Code) {
		if c.PublicID == publicID {
			code = c
			break
		}
	}
	a, err := t.upstream.Verify(ctx, code)
	switch {
	case err != nil && postern.CodeOf(err) == postern.NotFound:
		return t.refuse(ctx, none, publicID)
	case err != nil:
		return err
	case a.Status == StatusBackendError, a.Status == StatusNotEnoughAnswers:
		return postern.Errorf(postern.Unavailable, "the upstream validation service: %s", a.Status.Words())
	case a.Status != StatusOK:
		return t.refuse(ctx, "upstream service: "+string(a.Status), publicID)
	case listed && !a.Counted:
		return postern.Errorf(postern.Unavailable,
			"the upstream validation service does not return the key's counters")
	case listed:
		return t.accept(ctx, publicID, Last{
			Seq: a.Seq, Timestamp: a.Timestamp, Nonce: newNonce(),
			Time: t.config.Now(),
		})
	}
	t.proof.Credential = postern.Link{Kind: string(postern.YubiKey), ID: publicID}
	return t.log.Append(ctx, t.accepted(t.proof.Credential)...)
}

// accept uses up a YubiKey's code.
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

// Registration is a request to assign a YubiKey to a person.
type Registration struct {
	Person string
	Typed  string // the code, as the key typed it
	Label  string
	By     postern.Actor // who registers it
}

// Registry assigns keys to people, for [Checker.Register]. It fails with Denied if the
// actor's credential is not valid any more.
type Registry interface {
	// AddKeys adds keys that are not in the store yet.
	AddKeys(ctx context.Context, by postern.Actor, keys []*Key, replace bool) error
	// ClaimKey assigns a key to a person, unless another person has it.
	ClaimKey(ctx context.Context, by postern.Actor, publicID, person, label string) error
}

// Register assigns a key to a person who proves, by one code, to have it. The key must
// be in the store and assigned to no person, or the upstream service must accept the
// code. It returns the key's public ID. It fails with [postern.Denied] if another
// person has the key.
func (c *Checker) Register(ctx context.Context, r Registry, reg Registration) (string, error) {
	if len(reg.Label) > 64 {
		return "", postern.Errorf(postern.Invalid, "the name has more than 64 bytes")
	}
	t := &try{Checker: c, attempt: Attempt{
		User: reg.Person, Code: reg.Typed, Address: reg.By.Address,
		Service: "registration",
	}, proof: Proof{Person: reg.Person}}
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
		return key.PublicID, t.claim(ctx, r, key.PublicID, token, reg)
	case key != nil && (reason != upstreamKey || !key.Active()):
		return "", t.refuse(ctx, reason, key.PublicID)
	}
	return t.claimUpstream(ctx, r, readings[0], key, reg)
}

// claim assigns a key whose secret is here to the person, and uses up its code.
func (t *try) claim(ctx context.Context, r Registry, publicID string, token Token, reg Registration) error {
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

// claimUpstream assigns a key to the person if the upstream service accepts its code.
func (t *try) claimUpstream(ctx context.Context, r Registry, code Code, key *Key, reg Registration) (string, error) {
	if t.upstream == nil || !ValidPublicID(code.PublicID) {
		return "", t.refuse(ctx, "unknown key", "")
	}
	a, err := t.upstream.Verify(ctx, code)
	switch {
	case err != nil && postern.CodeOf(err) == postern.NotFound:
		return "", t.refuse(ctx, "unknown key", code.PublicID)
	case err != nil:
		return "", err
	case a.Status != StatusOK:
		return "", t.refuse(ctx, "upstream service: "+string(a.Status), code.PublicID)
	case key != nil:
		return code.PublicID, r.ClaimKey(ctx, reg.By, code.PublicID, reg.Person, reg.Label)
	}
	last := Never
	if a.Counted {
		last = Last{Seq: a.Seq, Timestamp: a.Timestamp, Time: t.config.Now()}
	}
	return code.PublicID, r.AddKeys(ctx, reg.By, []*Key{{
		PublicID: code.PublicID, Person: reg.Person, Label: reg.Label,
		Last: last,
	}}, false)
}
