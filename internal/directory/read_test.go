package directory_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/directory"
	"github.com/postern-project/postern/internal/posterntest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// configOf returns how to read a server as its reader.
func configOf(t *testing.T, s *posterntest.Slapd) directory.Config {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("reader\n"), 0o600))
	return directory.Config{
		URL: s.Secure, Name: "corp", CA: []string{s.CA}, Base: s.Base, BindDN: s.Reader, PasswordFile: secret,
	}
}

// user is an entry in LDIF, with more lines.
func user(uid, cn, more string) string {
	return fmt.Sprintf(`dn: uid=%s,dc=example,dc=com
changetype: add
objectClass: inetOrgPerson
uid: %s
cn: %s
sn: %s
%s

`, uid, uid, cn, cn, more)
}

// group is an entry in LDIF with its members' RDNs.
func group(cn string, members ...string) string {
	text := fmt.Sprintf("dn: cn=%s,dc=example,dc=com\nchangetype: add\nobjectClass: groupOfNames\ncn: %s\n",
		strings.ReplaceAll(cn, ",", `\2C`), cn)
	for _, m := range members {
		text += "member: " + m + ",dc=example,dc=com\n"
	}
	return text + "\n"
}

func named(s *directory.Snapshot) map[string]directory.Person {
	people := map[string]directory.Person{}
	for _, p := range s.People {
		people[p.Name] = p
	}
	return people
}

func TestReadsPeopleAndGroups(t *testing.T) {
	s := posterntest.StartSlapd(t)
	s.Change(user("Alice", "Alice A.", "mail: Alice@Example.com\ndisplayName:  Alice  Able ") +
		user("bob", "Bob", "mail: not an address") +
		user("jürgen", "Jürgen", "") +
		user("carol", "Carol", "objectClass: shadowAccount\nshadowExpire: 1") +
		user("dan", "Dan", "objectClass: shadowAccount\nshadowExpire: 99999") +
		user("erin", "Erin", "userPassword: x") +
		group("Domain Admins", "uid=Alice") +
		group("staff", "cn=domain  ADMINS", "uid=bob", "cn=loop") +
		group("loop", "cn=staff", "uid=dan") +
		group("bad,name", "uid=bob") + group("Admin", "uid=bob") +
		group("outer", "cn=bad\\2Cname") +
		`dn: cn=unix,dc=example,dc=com
changetype: add
objectClass: posixGroup
cn: unix
gidNumber: 1000
memberUid: bob
memberUid: nosuch

dn: uid=erin,dc=example,dc=com
changetype: modify
replace: pwdAccountLockedTime
pwdAccountLockedTime: 000001010000Z
`)
	c := configOf(t, s)
	for name, change := range map[string]func(*directory.Config){
		"LDAPS":    func(*directory.Config) {},
		"StartTLS": func(c *directory.Config) { c.URL = s.Plain },
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			change(&c)
			c.Suffix, c.Reserved = "@corp", []string{"admin@corp"}
			snapshot, err := directory.Read(t.Context(), c)
			must(t, err)
			people := named(snapshot)
			for name, want := range map[string]directory.Person{
				"Alice": {
					Email: "alice@example.com", FullName: "Alice Able",
					Groups: []string{"domain admins@corp", "loop@corp", "staff@corp"},
				},
				"bob":    {FullName: "Bob", Groups: []string{"loop@corp", "outer@corp", "staff@corp", "unix@corp"}},
				"jürgen": {FullName: "Jürgen"},
				"carol":  {FullName: "Carol", Disabled: true},
				"dan":    {FullName: "Dan", Groups: []string{"loop@corp", "staff@corp"}},
				"erin":   {FullName: "Erin", Disabled: true},
			} {
				p, there := people[name]
				if !there || p.ID == "" || p.Email != want.Email || p.FullName != want.FullName ||
					p.Disabled != want.Disabled || !slices.Equal(p.Groups, want.Groups) {
					t.Errorf("%s: %+v", name, p)
				}
			}
			if len(people) != 6 || len(snapshot.Skipped) != 3 {
				t.Errorf("%d people; skipped: %q", len(people), snapshot.Skipped)
			}
		})
	}
}

// TestReadsMoreThanOneAnswerHolds reads more people than the server sends at once.
func TestReadsMoreThanOneAnswerHolds(t *testing.T) {
	s := posterntest.StartSlapd(t)
	var ldif strings.Builder
	const n = 1234
	for i := range n {
		ldif.WriteString(user(fmt.Sprint("u", i), "U", ""))
	}
	s.Change(ldif.String())
	snapshot, err := directory.Read(t.Context(), configOf(t, s))
	must(t, err)
	if len(named(snapshot)) != n {
		t.Errorf("%d people", len(snapshot.People))
	}
}

// TestWhatIsNotSureIsRefused tries servers and accounts that must not be trusted, and
// answers that would suspend everybody.
func TestWhatIsNotSureIsRefused(t *testing.T) {
	s, other := posterntest.StartSlapd(t), posterntest.StartSlapd(t)
	s.Change(user("alice", "Alice", ""))
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(t, os.WriteFile(wrong, []byte("secret password\n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, []byte("\n"), 0o600))
	public := filepath.Join(t.TempDir(), "public")
	must(t, os.WriteFile(public, []byte("reader\n"), 0o644))
	for name, c := range map[string]struct {
		change func(*directory.Config)
		code   postern.Code
	}{
		"another CA, LDAPS": {func(c *directory.Config) { c.CA = []string{other.CA} }, postern.Unavailable},
		"another CA, StartTLS": {func(c *directory.Config) {
			c.URL, c.CA = s.Plain, []string{other.CA}
		}, postern.Unavailable},
		"the system's CAs": {func(c *directory.Config) { c.CA = nil }, postern.Unavailable},
		"another name": {func(c *directory.Config) {
			c.URL = strings.Replace(s.Secure, "localhost", "127.0.0.1", 1)
		}, postern.Unavailable},
		"no TLS there": {func(c *directory.Config) {
			c.URL = strings.Replace(s.Plain, "ldap:", "ldaps:", 1)
		}, postern.Unavailable},
		"a wrong password":   {func(c *directory.Config) { c.PasswordFile = wrong }, postern.Denied},
		"an empty password":  {func(c *directory.Config) { c.PasswordFile = empty }, postern.Denied},
		"a password for all": {func(c *directory.Config) { c.PasswordFile = public }, postern.Denied},
		"no file":            {func(c *directory.Config) { c.PasswordFile += "x" }, postern.Denied},
		"who sees no people": {func(c *directory.Config) {
			c.BindDN, c.PasswordFile = "", ""
		}, postern.Unavailable},
		"a base that is gone": {func(c *directory.Config) {
			c.Base = "ou=gone,dc=example,dc=com"
		}, postern.Unavailable},
		"a filter without hits": {func(c *directory.Config) { c.Users = "(uid=nosuch)" }, postern.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			config := configOf(t, s)
			c.change(&config)
			got, err := directory.Read(t.Context(), config)
			if postern.CodeOf(err) != c.code || strings.Contains(err.Error(), "secret password") {
				t.Errorf("%+v, %v (%v)", got, err, postern.CodeOf(err))
			}
		})
	}
}

// TestReadsAccountsOfActiveDirectory reads entries with the attributes of Active
// Directory, from a server that has them but not its rules.
func TestReadsAccountsOfActiveDirectory(t *testing.T) {
	s := posterntest.StartSlapd(t)
	account := func(name, more string) string {
		return fmt.Sprintf("dn: cn=%s,dc=example,dc=com\nchangetype: add\nobjectClass: inetOrgPerson\n"+
			"objectClass: extensibleObject\ncn: %[1]s\nsn: x\nsAMAccountName: %[1]s\n%s\n\n", name, more)
	}
	const never, before, after = "9223372036854775807", "116444736000000000", "190000000000000000" // 1601, 1970, 2203
	s.Change(account("Dave", "userAccountControl: 512\naccountExpires: "+never) +
		account("off", "userAccountControl: 514") + account("ended", "accountExpires: "+before) +
		account("later", "accountExpires: "+after) + account("zero", "accountExpires: 0"))
	c := configOf(t, s)
	c.Users, c.NameAttribute = "(sAMAccountName=*)", "sAMAccountName"
	snapshot, err := directory.Read(t.Context(), c)
	must(t, err)
	people := named(snapshot)
	for name, disabled := range map[string]bool{
		"Dave": false, "off": true, "ended": true, "later": false, "zero": false,
	} {
		if p, there := people[name]; !there || p.Disabled != disabled {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
