// Package directory takes people and groups from an LDAP directory (RFC 4511), such as
// OpenLDAP, FreeIPA or Active Directory. It only reads. [Read] reads a directory once;
// [Syncer] keeps a store like it, and says so when it cannot.
//
// The connection is always encrypted, and the server's certificate always verified.
package directory

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/postern-project/postern"
)

// Config says which directory to read and how.
type Config struct {
	// URL is ldaps://host, or ldap://host, where the connection is encrypted by
	// StartTLS before anything is asked.
	URL string `json:"url"`
	// Name is what the directory is called in entries and messages. Empty is the
	// URL's host.
	Name string `json:"name,omitempty"`
	// CA are PEM files of the CAs that the server's certificate may be from, in place
	// of the system's.
	CA []string `json:"ca,omitempty"`
	// BindDN is the account to read as, with the password in PasswordFile, which only
	// this user may read. Both empty read anonymously.
	BindDN       string `json:"bind_dn,omitempty"`
	PasswordFile string `json:"password_file,omitempty"`
	// Base is the entry below which people and groups are.
	Base string `json:"base"`
	// Users and Groups are filters (RFC 4515) that tell them from other entries; empty,
	// those of the usual schemas.
	Users  string `json:"users,omitempty"`
	Groups string `json:"groups,omitempty"`
	// NameAttribute has a person's name: uid, or sAMAccountName in Active Directory,
	// unless it is given.
	NameAttribute string `json:"name_attribute,omitempty"`
	// Suffix is appended to each group's name, as "@corp".
	Suffix string `json:"suffix,omitempty"`
	// Reserved are names of groups that the directory cannot give, since they have a
	// meaning of their own here.
	Reserved []string `json:"reserved,omitempty"`
	// Refresh is how often the directory is read, 5 s to 1 min; default 30 s.
	Refresh time.Duration `json:"refresh,omitempty"`
	// Keep is how long people keep what they had while the directory is unavailable,
	// 1 min to 30 days; default 8 h.
	Keep time.Duration `json:"keep,omitempty"`
}

// The filters of people and groups, unless others are given: those of OpenLDAP's and
// FreeIPA's schemas, and of Active Directory's, where computers are users, too.
const (
	defaultUsers    = "(|(objectClass=posixAccount)(objectClass=inetOrgPerson))"
	microsoftUsers  = "(&(objectCategory=person)(objectClass=user))"
	microsoftGroups = "(objectClass=group)"
	defaultGroups   = "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup)" +
		"(objectClass=group))"
)

// WithDefaults returns the Config with what is not set filled in.
func (c Config) WithDefaults() Config {
	if u, err := url.Parse(c.URL); err == nil && c.Name == "" {
		c.Name = u.Hostname()
	}
	if c.Groups == "" {
		c.Groups = defaultGroups
	}
	if c.Refresh == 0 {
		c.Refresh = 30 * time.Second
	}
	if c.Keep == 0 {
		c.Keep = 8 * time.Hour
	}
	return c
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	c = c.WithDefaults()
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "ldaps" && u.Scheme != "ldap" || u.Hostname() == "" || u.User != nil ||
		u.Path != "" && u.Path != "/" || u.RawQuery != "":
		return postern.Errorf(postern.Invalid, "a directory is ldaps://host or ldap://host")
	case c.Base == "":
		return postern.Errorf(postern.Invalid, "the directory has no base").
			WithHint("name the entry below which people are, as dc=example,dc=com")
	case (c.BindDN == "") != (c.PasswordFile == ""):
		return postern.Errorf(postern.Invalid, "the directory's account and the file of its password go together")
	case c.Refresh < 5*time.Second || c.Refresh > time.Minute:
		return postern.Errorf(postern.Invalid, "a directory is read every 5 s to 1 min")
	case c.Keep < time.Minute || c.Keep > 30*24*time.Hour:
		return postern.Errorf(postern.Invalid, "what a directory said is kept for 1 min to 30 days")
	case c.Suffix != "" && !postern.ValidGroup("x"+c.Suffix):
		return postern.Errorf(postern.Invalid, "%q cannot end a group's name", c.Suffix)
	}
	if _, err := ldap.ParseDN(c.Base); err != nil {
		return postern.Errorf(postern.Invalid, "the directory's base %q is no name of an entry", c.Base)
	}
	for _, filter := range []string{c.Users, c.Groups} {
		if filter == "" {
			continue
		}
		if _, err := ldap.CompileFilter(filter); err != nil {
			return postern.Errorf(postern.Invalid, "%q is no LDAP filter", filter)
		}
	}
	return nil
}

// Person is one that the directory has.
type Person struct {
	ID       string // of the entry, which no later entry gets, whatever its name
	Name     string // as the directory spells it
	Email    string // "" if it has none that could be used
	FullName string
	Disabled bool
	Groups   []string // sorted; those that a group has as members by other groups are among them
}

// Snapshot is what a directory said at one time.
type Snapshot struct {
	People  []Person
	Skipped []string // entries that could not be taken, each with the reason
}

// Store keeps what was read. It is safe for concurrent use, on several servers at once.
type Store interface {
	// Sync makes people like those of a directory's snapshot. Who is new there is
	// added; who is disabled or missing there is suspended; who comes back is resumed
	// unless an administrator has suspended them. Each change is an entry of the timeline.
	Sync(ctx context.Context, name string, s *Snapshot) (Changes, error)
	// Failed notes that the directory cannot be read. The first time is an entry of
	// the timeline, and so is the next Sync. Once that lasts longer than keep, the
	// directory's people are suspended until the next Sync.
	Failed(ctx context.Context, name, why string, keep time.Duration) (Changes, error)
}

// Changes are what was changed, by the names of people.
type Changes struct {
	Added, Changed, Suspended, Resumed []string
	Skipped                            []string // people that could not be taken, each with the reason
}

// Empty reports whether nothing was changed.
func (c Changes) Empty() bool {
	return len(c.Added)+len(c.Changed)+len(c.Suspended)+len(c.Resumed) == 0
}

// fullName returns a name as a person may have it.
func fullName(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	if len(s) > 256 {
		s = strings.ToValidUTF8(s[:256], "")
	}
	return s
}
