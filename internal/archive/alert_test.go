package archive_test

import (
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/archive"
	"github.com/postern-project/postern/timeline"
)

// TestAnAttackersAddressIsNewAfterAnArchive has all logins of a person in an archive: the next one, from
// elsewhere, is not the first of a new person.
func TestAnAttackersAddressIsNewAfterAnArchive(t *testing.T) {
	db := logOf(t)
	for name, at := range map[string]time.Time{
		"old": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), "young": time.Now(),
	} {
		must(t, db.People().AddPerson(t.Context(), postern.Person{Name: name, Created: at}))
	}
	asked := func(person string) bool {
		t.Helper()
		isNew, err := db.Alerts().NewAddress(t.Context(), postern.Event{
			Index: 1 << 20, Person: person, Address: "192.0.2.66",
		})
		must(t, err)
		return isNew
	}
	if asked("old") || asked("young") {
		t.Error("the first login of a person is from a new address")
	}
	if _, err := archive.Run(t.Context(), db.Timeline(), t.TempDir(), archived); err != nil {
		t.Fatal(err)
	}
	if !asked("old") || asked("young") {
		t.Errorf("after an archive a new address is one of a person of before %t, of a new one %t", asked("old"),
			asked("young"))
	}
}

// TestARecoveryIsRecordedAfterAnArchive has the failure of a check in an archive when it ends.
func TestARecoveryIsRecordedAfterAnArchive(t *testing.T) {
	events := slices.Repeat([]postern.Event{{Kind: postern.EventSignedIn}}, size)
	events[0] = postern.Event{Kind: postern.EventCheckDisk, Object: "h", Outcome: postern.Failed, Reason: "full"}
	db := logWith(t, events)
	if _, err := archive.Run(t.Context(), db.Timeline(), t.TempDir(), archived); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		must(t, db.Timeline().AppendChange(t.Context(), postern.Event{
			Kind: postern.EventCheckDisk, Object: "h", Outcome: postern.OK,
		}))
	}
	kept, err := db.Timeline().Recent().Events(t.Context(), timeline.Filter{Kind: postern.EventCheckDisk})
	if err != nil || len(kept) != 1 || kept[0].Outcome != postern.OK {
		t.Errorf("%v, %v", kept, err)
	}
}
