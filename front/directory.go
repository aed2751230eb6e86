package front

import (
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Directory says which LDAP directory people and groups are taken from. What is empty
// has the default that the word's description names.
type Directory struct {
	URL           string         `json:"url"`
	Name          string         `json:"name,omitempty"`
	CA            []string       `json:"ca,omitempty"`
	BindDN        string         `json:"bind_dn,omitempty"`
	PasswordFile  string         `json:"password_file,omitempty"`
	Base          string         `json:"base,omitempty"`
	Users         string         `json:"users,omitempty"`
	Groups        string         `json:"groups,omitempty"`
	NameAttribute string         `json:"name_attribute,omitempty"`
	GroupSuffix   string         `json:"group_suffix,omitempty"`
	Refresh       caddy.Duration `json:"refresh,omitempty"`
	Keep          caddy.Duration `json:"keep,omitempty"`
}

var directoryWords = []word[Directory]{
	{
		Word{"base", "DN", "The entry below which people and groups are, as dc=example,dc=com. It must be given."},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.Base) },
	},
	{
		Word{"bind_dn", "DN", "The account to read as; without it the directory is read anonymously."},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.BindDN) },
	},
	{
		Word{
			"password_file", "FILE",
			"The account's password, in a file that only the server's user may read, or that systemd keeps: " +
				"{$CREDENTIALS_DIRECTORY}/NAME.",
		},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.PasswordFile) },
	},
	{
		Word{"ca", "FILE…", "PEM files of the CAs that the directory's certificate may be from, in place of the " +
			"system's."},
		func(c *Directory, d *caddyfile.Dispenser) error { return some(d, &c.CA) },
	},
	{
		Word{"name", "TEXT", "What the directory is called in entries and messages; its host unless it is given."},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.Name) },
	},
	{
		Word{"users", "FILTER", "An LDAP filter for people; accounts that are not computers unless it is given."},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.Users) },
	},
	{
		Word{"groups", "FILTER", "An LDAP filter for groups; all unless it is given."},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.Groups) },
	},
	{
		Word{
			"name_attribute", "ATTRIBUTE",
			"What has a person's name; uid, or sAMAccountName in Active Directory, unless it is given.",
		},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.NameAttribute) },
	},
	{
		Word{"group_suffix", "TEXT", "Is appended to each group's name, as @corp."},
		func(c *Directory, d *caddyfile.Dispenser) error { return one(d, &c.GroupSuffix) },
	},
	{
		Word{"refresh", "DURATION", "How often the directory is read, 5s to 1m; 30s unless it is given."},
		func(c *Directory, d *caddyfile.Dispenser) error { return duration(d, &c.Refresh) },
	},
	{
		Word{"keep", "DURATION", "How long people keep their access while the directory is unavailable, 1m to 30d; " +
			"8h unless it is given. " +
			"Then they are suspended."},
		func(c *Directory, d *caddyfile.Dispenser) error { return duration(d, &c.Keep) },
	},
}

func (a *App) parseDirectory(d *caddyfile.Dispenser) error {
	if a.Directory != nil {
		return d.Err("there is one directory")
	}
	a.Directory = new(Directory)
	if err := one(d, &a.Directory.URL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("directory", directoryWords, a.Directory, d); err != nil {
			return err
		}
	}
	return nil
}

// duration reads the one argument of a word, as Caddy reads durations.
func duration(d *caddyfile.Dispenser, to *caddy.Duration) error {
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil || v <= 0 {
		return d.Errf("%q is no duration, as 30s or 8h", text)
	}
	*to = caddy.Duration(v.Round(time.Second))
	return nil
}
