package store_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/passkey"
)

// passkeys are added once, and are used with challenges and counters that were not seen
// before, on two servers.
func passkeys(t *testing.T, open opener) {
	one, two := open(t), open(t)
	must(t, one.People().AddPerson(t.Context(), postern.Person{Name: "dan"}))
	use := func(challenge string) passkey.Use {
		return passkey.Use{Challenge: sha256.Sum256([]byte(challenge)), Expires: one.Now().Add(time.Minute)}
	}
	k := passkey.Passkey{
		Credential: postern.Credential{Kind: postern.Passkey, ID: "00ff", Person: "dan", Label: "phone"},
		Raw:        []byte{0, 1}, PublicKey: []byte{2, 3}, Counter: 4, AAGUID: make([]byte, 16),
		Transports: []string{"hybrid", "internal"}, Synced: true,
	}
	added := postern.Event{Kind: postern.EventPasskeyAdded, Person: "dan", Object: k.ID}
	dan := postern.Actor{Person: "dan"}
	must(t, one.Passkeys().AddPasskey(t.Context(), dan, k, use("a"), added))
	refused := func(what string, code postern.Code, err error) {
		t.Helper()
		if err == nil || postern.CodeOf(err) != code {
			t.Errorf("%s: %v, want %v", what, err, code)
		}
	}
	other := k
	other.ID = "0100"
	refused("the same challenge", postern.Denied, two.Passkeys().AddPasskey(t.Context(), dan, other, use("a"), added))
	refused("the same passkey", postern.Conflict, two.Passkeys().AddPasskey(t.Context(), dan, k, use("b"), added))

	got, who, err := two.Passkeys().Passkey(t.Context(), k.ID)
	must(t, err)
	if who.Name != "dan" || got.Label != "phone" || got.Counter != 4 || !got.Synced ||
		!slices.Equal(got.Raw, k.Raw) || !slices.Equal(got.PublicKey, k.PublicKey) ||
		!slices.Equal(got.AAGUID, k.AAGUID) || !slices.Equal(got.Transports, k.Transports) {
		t.Errorf("%+v of %s", got, who.Name)
	}
	must(t, one.Passkeys().UsePasskey(t.Context(), k.ID, 5, use("c")))
	refused("a challenge that another server saw", postern.Denied,
		two.Passkeys().UsePasskey(t.Context(), k.ID, 6, use("c")))
	refused("the counter that another server saw", postern.Denied,
		two.Passkeys().UsePasskey(t.Context(), k.ID, 5, use("d")))
	refused("no counter", postern.Denied, two.Passkeys().UsePasskey(t.Context(), k.ID, 0, use("e")))
	refused("a passkey that is not there", postern.NotFound,
		two.Passkeys().UsePasskey(t.Context(), "0101", 1, use("f")))

	must(t, two.Passkeys().RenamePasskey(t.Context(), dan, k.ID, "blue key"))
	refused("another person's passkey", postern.NotFound,
		two.Passkeys().RenamePasskey(t.Context(), postern.Actor{Person: "eve"}, k.ID, "mine"))
	list, err := one.Passkeys().PasskeysOf(t.Context(), "dan")
	must(t, err)
	if len(list) != 1 || list[0].Label != "blue key" || list[0].Counter != 5 || list[0].LastUsed.IsZero() {
		t.Errorf("dan's passkeys: %+v", list)
	}

	must(t, one.Portal().ForgetExpired(t.Context(), one.Now().Add(time.Hour)))
	must(t, two.Passkeys().UsePasskey(t.Context(), k.ID, 6, use("c"))) // its challenge expired long ago
}
