package store_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

// TestCredentials lists YubiKeys and authenticators, and changes the status of either.
func TestCredentials(t *testing.T) {
	db := storetest.Open(t)
	keys := db.OTP()
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dan"}))
	key, err := otp.NewKey("")
	must(t, err)
	key.Person = "dan"
	must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false))
	app := otp.NewOATH(postern.TOTP, "dan", "phone")
	must(t, keys.AddOATH(t.Context(), postern.Actor{}, app))
	for person, want := range map[string]int{"": 2, "dan": 2, "eve": 0} {
		if list, err := keys.Credentials(t.Context(), store.Page{Person: person}); err != nil || len(list) != want {
			t.Errorf("%q has %+v, %v", person, list, err)
		}
	}
	for _, id := range []string{key.PublicID, app.ID} {
		must(t, keys.SetStatus(t.Context(), postern.Actor{}, id, postern.CredentialDisabled))
		if c, err := keys.Credential(t.Context(), id); err != nil || c.Status != postern.CredentialDisabled {
			t.Errorf("%+v, %v", c, err)
		}
	}
	err = keys.SetStatus(t.Context(), postern.Actor{}, "vvccccbdefgh", postern.CredentialDisabled)
	if postern.CodeOf(err) != postern.NotFound {
		t.Errorf("an unknown key: %v", err)
	}
}

// TestExportIsRecorded has the entry on the timeline by the time the secrets are out.
func TestExportIsRecorded(t *testing.T) {
	db := storetest.Open(t)
	keys := db.OTP()
	key, err := otp.NewKey("")
	must(t, err)
	must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false))
	all, err := keys.Export(t.Context())
	must(t, err)
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventOTPExported, Limit: 10})
	must(t, err)
	if len(all) != 1 || all[0].Secret == nil || len(events) != 1 || events[0].Count != 1 {
		t.Errorf("exported %+v, recorded %+v", all, events)
	}
}

// TestADisabledFactorIsOne: a person whose only key was disabled still has a second
// factor. Otherwise sshd would log them in without one where it asks only people who
// have one.
func TestADisabledFactorIsOne(t *testing.T) {
	db := storetest.Open(t)
	keys := db.OTP()
	for _, name := range []string{"dan", "eve"} {
		must(t, db.People().AddPerson(t.Context(), postern.Person{Name: name}))
	}
	must(t, db.People().PutCredential(t.Context(), postern.Credential{
		Kind: postern.YubiKey, ID: "vvccccbdefgh", Person: "dan",
	}))
	for _, status := range []postern.CredentialStatus{
		postern.CredentialActive, postern.CredentialDisabled, postern.CredentialRevoked,
	} {
		must(t, db.People().SetCredentialStatus(t.Context(), postern.YubiKey, "vvccccbdefgh", status))
		if n, err := keys.Factors(t.Context(), "dan"); err != nil || n != 1 {
			t.Errorf("%s: %d factors, %v", status, n, err)
		}
	}
	if n, err := keys.Factors(t.Context(), "eve"); err != nil || n != 0 {
		t.Errorf("eve: %d factors, %v", n, err)
	}
}

// TestOneTimePasswordsByPage lists YubiKeys and authenticators in pages of every length.
func TestOneTimePasswordsByPage(t *testing.T) {
	db := storetest.Open(t)
	keys := db.OTP()
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "alice"}))
	for i := range 5 {
		key, err := otp.NewKey("")
		must(t, err)
		key.Person = []string{"", "alice"}[i%2]
		must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false))
		must(t, keys.AddOATH(t.Context(), postern.Actor{}, otp.NewOATH(postern.TOTP, "alice", fmt.Sprint(i))))
	}
	for _, person := range []string{"", "alice"} {
		all, err := keys.Credentials(t.Context(), store.Page{Person: person})
		must(t, err)
		if want := map[string]int{"": 10, "alice": 7}[person]; len(all) != want {
			t.Fatalf("%q has %d, not %d", person, len(all), want)
		}
		for limit := 1; limit <= len(all); limit++ {
			var paged []otp.Credential
			for p := (store.Page{Person: person, Limit: limit}); ; p.After = paged[len(paged)-1].ID {
				list, err := keys.Credentials(t.Context(), p)
				must(t, err)
				if len(list) == 0 {
					break
				}
				paged = append(paged, list...)
			}
			if !reflect.DeepEqual(paged, all) {
				t.Errorf("%q by pages of %d: %+v, not %+v", person, limit, paged, all)
			}
		}
	}
	if _, err := keys.Credentials(t.Context(), store.Page{After: "none"}); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("behind one that is not there: %v", err)
	}
}
