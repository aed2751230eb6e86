package otp_test

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// checker returns a checker over the rig, whose upstream service is another
// rig, and the function that asks it.
func (h *rig) checker(t testing.TB, c otp.CheckerConfig, outside otp.Upstream) (*otp.Checker,
	func(user, code string) (otp.Proof, error),
) {
	t.Helper()
	check := otp.NewChecker(c, h.otp, h.otp, h.db.People(), outside, h.db)
	t.Cleanup(func() { check.Close() })
	return check, func(user, code string) (otp.Proof, error) {
		t.Helper()
		return check.Check(context.Background(), otp.Attempt{
			User: user, Code: code, Address: "192.0.2.7",
			Service: "sshd",
		})
	}
}

func (h *rig) people(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		must(t, h.db.People().AddPerson(t.Context(), postern.Person{Name: n}))
	}
}

// upstreamOf returns a client of another rig.
func upstreamOf(t testing.TB, h *rig) *otp.Client {
	t.Helper()
	c, err := otp.NewClient(otp.ClientConfig{ID: 1, Key: apiKey, URLs: []string{h.server.URL + "/wsapi/2.0/verify"}})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCheckRefusesWithOneAnswerAndManyReasons(t *testing.T) {
	cloud := newRig(t, store.Config{}, otp.Config{})
	cloud.client1(t)
	h := newRig(t, store.Config{}, otp.Config{})
	h.people(t, "alice", "bob", "jimbob", "carol")
	ctx := t.Context()

	alice, bob, lost, carol := h.token(t, "alice"), h.token(t, "bob"), h.token(t, "alice"), h.token(t, "carol")
	must(t, h.otp.SetKeyStatus(ctx, lost.PublicID, postern.CredentialDisabled))
	must(t, h.db.People().SetPersonStatus(ctx, "carol", postern.PersonSuspended))
	elsewhere := cloud.token(t, "")
	must(t, h.otp.AddKeys(ctx, postern.Actor{},
		[]*otp.Key{{PublicID: elsewhere.PublicID, Person: "alice", Last: otp.Never}}, false))
	mapped, mappedElsewhere := h.token(t, ""), cloud.token(t, "")

	path := filepath.Join(t.TempDir(), "yubikey_mappings")
	must(t, os.WriteFile(path, []byte("# comment\njimbob:"+mapped.PublicID+"\nfred:"+mappedElsewhere.PublicID+"\n"),
		0o644))
	check, ask := h.checker(t, otp.CheckerConfig{Mappings: path}, upstreamOf(t, cloud))

	used := touch(t, alice)
	usedElsewhere := touch(t, elsewhere)
	for _, c := range []struct {
		name, user, code, reason string
		want                     postern.Code // Internal: good
	}{
		{"own key", "alice", used, "", postern.Internal},
		{"again", "alice", used, "replayed code", postern.Denied},
		{"on another layout", "alice", dvorak(touch(t, alice)), "", postern.Internal},
		{"bob's key", "alice", touch(t, bob), "another person's key", postern.Denied},
		{"disabled key", "alice", touch(t, lost), "key disabled", postern.Denied},
		{"unknown key", "alice", touch(t, otp.NewSoftToken()), "unknown key", postern.Denied},
		{"damaged code", "alice", flip(touch(t, alice)), "not a code of this key", postern.Denied},
		{"suspended person", "carol", touch(t, carol), "person suspended", postern.Denied},
		{"unknown person", "mallory", touch(t, alice), "unknown person", postern.NotFound},
		{"upstream key", "alice", usedElsewhere, "", postern.Internal},
		{"upstream key again", "alice", usedElsewhere, "upstream service: REPLAYED_OTP", postern.Denied},
		{"upstream key of another", "bob", touch(t, elsewhere), "another person's key", postern.Denied},
		{"mapped key", "jimbob", touch(t, mapped), "", postern.Internal},
		{"mapped key of a longer name", "bob", touch(t, mapped), "another person's key", postern.Denied},
		{"mapped upstream key for an account", "fred", touch(t, mappedElsewhere), "", postern.Internal},
		{"digits without an authenticator", "bob", "123456", "no authenticator", postern.Denied},
		{"empty", "alice", "", "not a code", postern.Denied},
		{"nonsense", "alice", "let me in", "not a code", postern.Denied},
	} {
		proof, err := ask(c.user, c.code)
		if got := postern.CodeOf(err); err == nil != (c.want == postern.Internal) || err != nil && got != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && (proof.Credential.Kind != string(postern.YubiKey) || proof.Credential.ID == "" ||
			c.user != "fred" && proof.Person != c.user) {
			t.Errorf("%s proves %+v", c.name, proof)
		}
		if c.want == postern.Denied && err.Error() != "the code was not accepted" {
			t.Errorf("%s is reported: %v", c.name, err)
		}
	}
	if c, err := h.db.People().Credential(ctx, postern.YubiKey, alice.PublicID); err != nil || c.LastUsed.IsZero() {
		t.Errorf("the credential says that it was never used: %+v, %v", c, err)
	}
	check.Close()
	reasons := map[string]bool{}
	for _, e := range h.events(t) {
		reasons[e.Reason] = true
		if e.Address != "192.0.2.7" || e.Details["service"] != "sshd" {
			t.Errorf("the event lacks address or service: %+v", e)
		}
	}
	for _, want := range []string{
		"", "replayed code", "another person's key", "key disabled", "unknown key",
		"not a code of this key", "person suspended", "unknown person", "upstream service: REPLAYED_OTP",
		"no authenticator", "not a code",
	} {
		if !reasons[want] {
			t.Errorf("the timeline never says %q", want)
		}
	}
}

func dvorak(code string) string {
	from, to := "cbdefghijklnrtuv", "jxe.uidchtnbpygk"
	var b strings.Builder
	for _, c := range code {
		b.WriteByte(to[strings.IndexRune(from, c)])
	}
	return b.String()
}

// flip changes the last letter.
func flip(code string) string {
	last := "c"
	if strings.HasSuffix(code, "c") {
		last = "b"
	}
	return code[:len(code)-1] + last
}

func TestShortCodesCountOnceAndGuessingIsLocked(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.people(t, "alice", "bob")
	now := time.Unix(1700000000, 0)
	check, ask := h.checker(t, otp.CheckerConfig{Now: func() time.Time { return now }}, nil)
	totp, hotp := otp.NewOATH(postern.TOTP, "alice", "phone"), otp.NewOATH(postern.HOTP, "alice", "fob")
	must(t, h.otp.AddOATH(t.Context(), postern.Actor{}, totp))
	must(t, h.otp.AddOATH(t.Context(), postern.Actor{}, hotp))

	ok := func(name, code string) {
		t.Helper()
		if _, err := ask("alice", code); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	no := func(name, code string) {
		t.Helper()
		if _, err := ask("alice", code); postern.CodeOf(err) != postern.Denied || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ok("totp", totp.Code(now))
	no("the same step again", totp.Code(now))
	no("a step before it", totp.Code(now.Add(-30*time.Second)))
	now = now.Add(30 * time.Second)
	c := totp.Code(now)
	ok("the next step, with a space", c[:3]+" "+c[3:])
	now = now.Add(-time.Hour)
	no("an old step, the clock set back", totp.Code(now))
	now = now.Add(2 * time.Hour)
	no("an old step, the clock set ahead", c)
	ok("hotp", hotp.Code(now))
	no("hotp again", hotp.Code(now))
	hotp.Moving = 5
	ok("hotp a few ahead", hotp.Code(now))
	for hotp.Moving = 7; otpHas(totp, now, hotp.Code(now)); hotp.Moving++ {
	}
	good := totp.Code(now)
	for range 5 {
		no("wrong", wrongCode(totp, now))
	}
	no("right, but locked", good)
	// The lock is durable: it holds for another server on the same database.
	other := otp.NewChecker(otp.CheckerConfig{Now: func() time.Time {
		return now
	}}, h.db.OTP(), h.db.OTP(), h.db.People(), nil, h.db)
	defer other.Close()
	if _, err := other.Check(t.Context(), otp.Attempt{User: "alice", Code: good}); err == nil {
		t.Error("another server does not know of the lock")
	}
	now = now.Add(61 * time.Second)
	ok("right, after a minute", totp.Code(now))
	check.Close()
}

// otpHas reports whether the code could be one of the authenticator's now.
func otpHas(o *otp.OATH, now time.Time, code string) bool {
	_, ok := o.Match(code, now)
	return ok
}

func wrongCode(o *otp.OATH, now time.Time) string {
	for {
		var b [6]byte
		rand.Read(b[:])
		for i := range b {
			b[i] = '0' + b[i]%10
		}
		if !otpHas(o, now, string(b[:])) {
			return string(b[:])
		}
	}
}

func TestRecoveryCodesWorkOnce(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.people(t, "alice", "bob")
	_, ask := h.checker(t, otp.CheckerConfig{}, nil)
	codes, hashes := otp.NewBackupCodes("alice")
	must(t, h.otp.SetBackupCodes(t.Context(), postern.Actor{}, "alice", hashes))
	if _, err := ask("bob", codes[0]); err == nil {
		t.Error("alice's code lets bob in")
	}
	proof, err := ask("alice", strings.ToUpper(codes[0]))
	if err != nil || proof.Credential.Kind != string(postern.BackupCode) {
		t.Errorf("a backup code: %+v, %v", proof, err)
	}
	if _, err := ask("alice", codes[0]); postern.CodeOf(err) != postern.Denied {
		t.Errorf("again: %v", err)
	}
	if n, err := h.otp.BackupCodesLeft(t.Context(), "alice"); n != 9 || err != nil {
		t.Errorf("%d left, %v", n, err)
	}
	must(t, h.db.People().SetPersonStatus(t.Context(), "alice", postern.PersonSuspended))
	if _, err := ask("alice", codes[1]); err == nil {
		t.Error("a suspended person is accepted")
	}
	must(t, h.db.People().SetPersonStatus(t.Context(), "alice", postern.PersonActive))
	_, fresh := otp.NewBackupCodes("alice")
	must(t, h.otp.SetBackupCodes(t.Context(), postern.Actor{}, "alice", fresh))
	if _, err := ask("alice", codes[2]); err == nil {
		t.Error("a code that was replaced still works")
	}
}

func TestRegisterByTouch(t *testing.T) {
	cloud := newRig(t, store.Config{}, otp.Config{})
	cloud.client1(t)
	h := newRig(t, store.Config{}, otp.Config{})
	h.people(t, "alice", "bob")
	check, ask := h.checker(t, otp.CheckerConfig{}, upstreamOf(t, cloud))
	ours, theirs, bobs := h.token(t, ""), cloud.token(t, ""), h.token(t, "bob")
	register := func(code string) (string, error) {
		return check.Register(t.Context(), h.otp, otp.Registration{Person: "alice", Typed: code, Label: "blue"})
	}
	for _, tok := range []*otp.SoftToken{ours, theirs} {
		code := touch(t, tok)
		if id, err := register(code); err != nil || id != tok.PublicID {
			t.Fatalf("register: %s, %v", id, err)
		}
		if _, err := ask("alice", code); err == nil {
			t.Error("the code that registered the key is good once more")
		}
		if _, err := ask("alice", touch(t, tok)); err != nil {
			t.Errorf("the next code: %v", err)
		}
		if _, err := register(touch(t, tok)); postern.CodeOf(err) != postern.Conflict {
			t.Errorf("registered again: %v", err)
		}
	}
	for name, code := range map[string]string{
		"bob's": touch(t, bobs), "unknown": touch(t, otp.NewSoftToken()),
		"words": "no key at all",
	} {
		if _, err := register(code); err == nil {
			t.Errorf("%s key was registered", name)
		}
	}
	keys, err := h.otp.Keys(t.Context(), "alice")
	if err != nil || len(keys) != 2 || keys[0].Label != "blue" || keys[1].Label != "blue" {
		t.Errorf("alice has %d keys, %v", len(keys), err)
	}
}
