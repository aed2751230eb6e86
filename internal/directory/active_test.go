package directory_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/directory"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestReadsActiveDirectory reads a domain of Samba's: groups in groups by the server's own
// rule, primary groups, accounts that are disabled, and names that are hard to write in a
// filter.
func TestReadsActiveDirectory(t *testing.T) {
	a := posterntest.StartActiveDirectory(t)
	account := func(name, more string) string {
		return fmt.Sprintf("dn: cn=%s,cn=users,%s\nchangetype: add\nobjectClass: user\nsAMAccountName: %[1]s\n"+
			"%[3]s\n\n",
			name, a.Base, more)
	}
	group := func(name string, members ...string) string {
		text := fmt.Sprintf("dn: cn=%s,cn=users,%s\nchangetype: add\nobjectClass: group\n", name, a.Base)
		for _, m := range members {
			text += fmt.Sprintf("member: cn=%s,cn=users,%s\n", m, a.Base)
		}
		return text + "\n"
	}
	const normal, before = "userAccountControl: 544", "116444736000000000" // no password yet; 1970
	a.Change(account("Alice", normal+"\nmail: Alice@Example.com\ndisplayName: Alice Able") +
		account("bob", normal) + account("jürgen", normal) + account("off", "userAccountControl: 546") +
		account("ended", normal+"\naccountExpires: "+before) +
		group("core", "Alice", "off") + group("linux-admins", "core") + group(`no (name) *`, "linux-admins") +
		group("staff", "no (name) *", "jürgen") + group("desk", "bob") +
		"dn: ou=Desks (all)\\, *," + a.Base + "\nchangetype: add\nobjectClass: organizationalUnit\n\n" +
		"dn: cn=all desks,ou=Desks (all)\\, *," + a.Base + "\nchangetype: add\nobjectClass: group\n" +
		"member: cn=desk,cn=users," + a.Base + "\n\n")
	a.Change("dn: cn=bob,cn=users," + a.Base + "\nchangetype: modify\nreplace: primaryGroupID\nprimaryGroupID: " +
		a.Value("cn=desk,cn=users,"+a.Base, "primaryGroupToken") + "\n")
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte(a.Password), 0o600))
	c := directory.Config{
		URL: a.URL, Name: "corp", CA: []string{a.CA}, Base: a.Base, BindDN: a.Admin, PasswordFile: secret,
		Suffix: "@corp",
	}
	snapshot, err := posterntest.InNetwork(a.PID, func() (*directory.Snapshot, error) {
		return directory.Read(t.Context(), c)
	})
	must(t, err)
	people := named(snapshot)
	for name, want := range map[string]directory.Person{
		"Alice": {
			Email: "alice@example.com", FullName: "Alice Able",
			Groups: []string{"core@corp", "domain users@corp", "linux-admins@corp", "staff@corp", "users@corp"},
		},
		"bob": {FullName: "bob", Groups: []string{
			"all desks@corp", "desk@corp", "domain users@corp",
			"users@corp",
		}},
		"jürgen": {FullName: "jürgen", Groups: []string{"domain users@corp", "staff@corp", "users@corp"}},
		"off": {
			FullName: "off", Disabled: true,
			Groups: []string{"core@corp", "domain users@corp", "linux-admins@corp", "staff@corp", "users@corp"},
		},
		"ended": {FullName: "ended", Disabled: true, Groups: []string{"domain users@corp", "users@corp"}},
	} {
		p, there := people[name]
		if !there || len(p.ID) != 32 || p.Email != want.Email || p.FullName != want.FullName ||
			p.Disabled != want.Disabled || !slices.Equal(p.Groups, want.Groups) {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for name := range people {
		if strings.HasSuffix(name, "$") {
			t.Errorf("the computer %s is a person", name)
		}
	}
}
