package store_test

import (
	"slices"
	"testing"

	"github.com/postern-project/postern"
)

// peopleByPage lists people in pages of every length, in the order of the names' bytes.
func peopleByPage(t *testing.T, open opener) {
	db := open(t)
	names := []string{"a-b", "a1", "ab", "abc", "b", "b-a", "ba"}
	for _, name := range names {
		must(t, db.People().AddPerson(t.Context(), postern.Person{Name: name, Groups: []string{"ops", "web"}}))
	}
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "aa"}))
	must(t, db.People().SetPersonStatus(t.Context(), "aa", postern.PersonRemoved))
	for n := 1; n <= len(names)+1; n++ {
		var paged []string
		for after := ""; ; after = paged[len(paged)-1] {
			page, err := db.People().Page(t.Context(), after, n)
			must(t, err)
			for _, p := range page {
				paged = append(paged, p.Name)
				if !slices.Equal(p.Groups, []string{"ops", "web"}) {
					t.Errorf("%s is in %v", p.Name, p.Groups)
				}
			}
			if len(page) < n {
				break
			}
		}
		if !slices.Equal(paged, names) {
			t.Errorf("pages of %d: %v", n, paged)
		}
	}
}
