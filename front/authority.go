package front

import (
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Profile says what the certificates of one profile of Postern's CA are like.
type Profile struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitempty"`
	Validity    caddy.Duration `json:"validity,omitempty"`  // unless another is asked for
	Max         caddy.Duration `json:"max,omitempty"`       // the longest that may be asked for
	Keys        []string       `json:"keys,omitempty"`      // kinds of key that are certified
	SignOnly    bool           `json:"sign_only,omitempty"` // RSA keys are certified for signatures alone
	Policies    []string       `json:"policies,omitempty"`  // object identifiers
}

// ACME says which ACME accounts need no key from the portal: those of clients at
// these addresses, for these names. One that is empty is no limit; with both empty
// each account needs a key.
type ACME struct {
	AnonymousFrom  []string `json:"anonymous_from,omitempty"`  // networks
	AnonymousNames []string `json:"anonymous_names,omitempty"` // patterns, as Portal.Names
}

// parseCA reads the ca block.
func (a *App) parseCA(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("ca", caWords, a, d); err != nil {
			return err
		}
	}
	return nil
}

// parseProfile reads the block of a profile.
func (a *App) parseProfile(name string, d *caddyfile.Dispenser) error {
	if slices.ContainsFunc(a.Profiles, func(p Profile) bool { return p.Name == name }) {
		return d.Errf("there is one profile %s", name)
	}
	p := Profile{Name: name}
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord(name, profileWords, &p, d); err != nil {
			return err
		}
	}
	a.Profiles = append(a.Profiles, p)
	return nil
}

// parseNamed reads "profile NAME { … }".
func (a *App) parseNamed(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	return a.parseProfile(d.Val(), d)
}

// parseACME reads the acme block.
func (a *App) parseACME(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("acme", acmeWords, &a.ACME, d); err != nil {
			return err
		}
	}
	return nil
}

// lifetime reads a length of time; days are written as 30d.
func lifetime(d *caddyfile.Dispenser, to *caddy.Duration) error {
	var text string
	if err := one(d, &text); err != nil {
		return err
	}
	length, err := caddy.ParseDuration(text)
	if err != nil || length < time.Minute {
		return d.Errf("%q is not a length of time such as 90d or 12h", text)
	}
	*to = caddy.Duration(length)
	return nil
}

// networks reads networks; private_ranges is Caddy's word for the private ones.
func networks(d *caddyfile.Dispenser, to *[]string) error {
	var list []string
	if err := some(d, &list); err != nil {
		return err
	}
	for _, n := range list {
		if n == "private_ranges" {
			*to = append(*to, caddyhttp.PrivateRangesCIDR()...)
		} else {
			*to = append(*to, n)
		}
	}
	return nil
}

// profileWord is the word of a profile that always exists.
func profileWord(name, of string) word[App] {
	return word[App]{
		Word{name, "", fmt.Sprintf("The profile %s, of %s; see below.", name, of)},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseProfile(name, d) },
	}
}

var caWords = []word[App]{
	profileWord("server", "servers' certificates"),
	profileWord("client", "people's certificates"),
	profileWord("ssh-user", "people's SSH certificates, with validity and max alone"),
	profileWord("ssh-host", "hosts' SSH certificates, with validity and max alone"),
	{
		Word{
			"profile", "NAME",
			"A further profile of servers' certificates, which ACME clients and the command line ask for " +
				"by its name; see below.",
		},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseNamed(d) },
	},
}

var profileWords = []word[Profile]{
	{
		Word{"description", "TEXT", "What the profile is for, in a few words; ACME clients are shown it."},
		func(p *Profile, d *caddyfile.Dispenser) error { return one(d, &p.Description) },
	},
	{
		Word{"validity", "DURATION", "How long a certificate is valid for which no other time is asked, such as 30d."},
		func(p *Profile, d *caddyfile.Dispenser) error { return lifetime(d, &p.Validity) },
	},
	{
		Word{
			"max", "DURATION",
			"The longest that may be asked for; 397d for servers and 1095d for people unless it is " +
				"given.",
		},
		func(p *Profile, d *caddyfile.Dispenser) error { return lifetime(d, &p.Max) },
	},
	{
		Word{
			"keys", "TYPE…",
			"The kinds of key that are certified: ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072, " +
				"rsa-4096. Unless it is given, all that are strong enough.",
		},
		func(p *Profile, d *caddyfile.Dispenser) error { return some(d, &p.Keys) },
	},
	{
		Word{
			"sign_only",
			"", "RSA keys are certified for signatures, and not to encrypt keys with, as TLS before 1.3 " +
				"may.",
		},
		func(p *Profile, d *caddyfile.Dispenser) error { return flag(d, &p.SignOnly) },
	},
	{
		Word{"policy", "OID…", "The certificates name these policies (RFC 5280, 4.2.1.4)."},
		func(p *Profile, d *caddyfile.Dispenser) error { return some(d, &p.Policies) },
	},
}

var acmeWords = []word[ACME]{
	{
		Word{
			"anonymous_from", "NETWORK…|private_ranges",
			"ACME clients at these addresses may have accounts without a " +
				"key from the portal.",
		},
		func(a *ACME, d *caddyfile.Dispenser) error { return networks(d, &a.AnonymousFrom) },
	},
	{
		Word{"anonymous_names", "PATTERN…", "Such accounts may have certificates for these names alone; without " +
			"anonymous_from, from everywhere."},
		func(a *ACME, d *caddyfile.Dispenser) error { return some(d, &a.AnonymousNames) },
	},
}
