package ca

import (
	"context"
	"crypto"
	"time"

	"github.com/postern-project/postern"
)

const day = 24 * time.Hour

// MaxServerValidity is the longest life of a server certificate that browsers
// accept.
const MaxServerValidity = 397 * day

// Config says how an Authority works. Its zero value works. Name, Country,
// Domains and the algorithms matter to [Init] alone: afterwards the root
// certificate is the truth.
type Config struct {
	Name    string   // organisation, O and the start of each CA's CN; default "Postern"
	Country string   // two letters, C of the CAs; may be empty
	Domains []string // the root's name constraints, see [ParseConstraint]; empty: none

	Algorithm    Algorithm // keys of the X.509 CAs; default P256
	SSHAlgorithm Algorithm // keys of the SSH CAs; default P256

	// URL is the base, http://host[/path], under which others reach
	// [Authority.Handler]. It is written into certificates as CRL distribution
	// point, OCSP responder and issuer. Empty means the stored one; see
	// [Authority.SetURL].
	URL string

	RootValidity         time.Duration // default 20 years
	IntermediateValidity time.Duration // default 10 years
	ServerValidity       time.Duration // default 90 days, at most MaxServerValidity
	ClientValidity       time.Duration // default 1 year, at most 3
	SSHUserValidity      time.Duration // default 16 hours
	SSHHostValidity      time.Duration // default 1 year
	CRLValidity          time.Duration // default 7 days: how long a CRL may be relied on
	OCSPValidity         time.Duration // default 1 hour: how long an OCSP answer may
	Backdate             time.Duration // default 5 minutes: how far another host's clock may be behind

	// KeyURI is the PKCS#11 URI of the HSM in which the private keys of new CAs are
	// made, or KeyInStore. Empty means where the role's last one is, at first the
	// Store.
	KeyURI     string
	RootKeyURI string // the same for the root's alone; empty: as KeyURI
	Keys       Keys   // opens keys in HSMs; nil: none can be used

	// Makers is the file with the CAs, beyond Yubico's, that vouch for YubiKeys, as
	// [piv.Trusted] takes it.
	Makers string

	Now func() time.Time // nil: time.Now
}

// Chosen reports whether c says how new CAs are made, in place of the defaults.
func (c Config) Chosen() bool {
	return c.Name != "" || c.Country != "" || len(c.Domains) > 0 || c.URL != "" || c.Algorithm != "" ||
		c.SSHAlgorithm != "" ||
		c.KeyURI != "" || c.RootKeyURI != ""
}

// KeyInStore is what Config.KeyURI says for a key that is sealed in the Store.
const KeyInStore = "state"

// Keys opens private keys that are kept outside the Store, in a hardware key store
// (HSM).
type Keys interface {
	// CreateKey makes a key for the issuer of that ID in the HSM of the URI,
	// and returns the URI by which OpenKey finds it again. If the URI names one
	// key, that one is used.
	CreateKey(ctx context.Context, uri, issuer string, alg Algorithm) (key crypto.Signer, keyURI string, err error)
	// OpenKey returns the key with that public half, for use by many goroutines at
	// once. It does not need the HSM: while that is unavailable the key's Sign fails
	// with Unavailable. A signature that is not by that key is an error.
	OpenKey(keyURI string, pub crypto.PublicKey) (crypto.Signer, error)
	// HSM returns the URI of the HSM that a key is in.
	HSM(keyURI string) (string, error)
}

// Validate returns an Invalid error that names the first setting which cannot
// work.
func (c Config) Validate() error {
	if len(c.Name) > 48 {
		return postern.Errorf(postern.Invalid, "the organisation's name is longer than 48 bytes")
	}
	if c.Country != "" && (len(c.Country) != 2 || c.Country[0] < 'A' || c.Country[0] > 'Z' || c.Country[1] < 'A' ||
		c.Country[1] > 'Z') {
		return postern.Errorf(postern.Invalid, "country %q is not two capital letters", c.Country)
	}
	for _, d := range c.Domains {
		if _, err := ParseConstraint(d); err != nil {
			return err
		}
	}
	for _, alg := range []Algorithm{c.Algorithm, c.SSHAlgorithm} {
		if alg != "" && !alg.valid() {
			return postern.Errorf(postern.Invalid, "unknown key algorithm %q", alg).WithHint("one of %s",
				algorithmNames())
		}
	}
	if c.Algorithm == Ed25519 {
		return postern.Errorf(postern.Invalid, "browsers do not accept Ed25519 in an X.509 CA").
			WithHint("use %s, or give Ed25519 to the SSH CAs alone", P256)
	}
	if c.URL != "" {
		if err := checkURL(c.URL); err != nil {
			return err
		}
	}
	for _, uri := range []string{c.KeyURI, c.RootKeyURI} {
		if err := c.checkHSM(uri); err != nil {
			return err
		}
	}
	if c.SSHAlgorithm == Ed25519 && c.KeyURI != "" && c.KeyURI != KeyInStore {
		return postern.Errorf(postern.Invalid, "a key of type %s cannot be made in an HSM",
			Ed25519).WithHint("use %s for the SSH CAs", P256)
	}
	for _, v := range []struct {
		name string
		d    time.Duration
		max  time.Duration
	}{
		{"root", c.RootValidity, 40 * 365 * day},
		{"intermediate", c.IntermediateValidity, 40 * 365 * day},
		{"server", c.ServerValidity, MaxServerValidity},
		{"client", c.ClientValidity, maxClientValidity},
		{"SSH user", c.SSHUserValidity, maxSSHValidity},
		{"SSH host", c.SSHHostValidity, maxSSHValidity},
		{"CRL", c.CRLValidity, 365 * day},
		{"OCSP", c.OCSPValidity, 30 * day},
		{"backdating", c.Backdate, 2 * day},
	} {
		if v.d < 0 || v.d > v.max {
			return postern.Errorf(postern.Invalid, "%s validity %v is not between 0 and %v", v.name, v.d, v.max)
		}
	}
	return nil
}

func (c Config) checkHSM(uri string) error {
	switch {
	case uri == "" || uri == KeyInStore:
		return nil
	case c.Keys == nil:
		return postern.Errorf(postern.Invalid, "keys in an HSM cannot be used from here")
	}
	_, err := c.Keys.HSM(uri)
	return err
}

const (
	maxClientValidity = 3 * 365 * day
	maxSSHValidity    = 10 * 365 * day
)

// withDefaults returns c with every zero setting filled in.
func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "Postern"
	}
	if c.Algorithm == "" {
		c.Algorithm = P256
	}
	if c.SSHAlgorithm == "" {
		c.SSHAlgorithm = P256
	}
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{
		{&c.RootValidity, 20 * 365 * day},
		{&c.IntermediateValidity, 10 * 365 * day},
		{&c.ServerValidity, 90 * day},
		{&c.ClientValidity, 365 * day},
		{&c.SSHUserValidity, 16 * time.Hour},
		{&c.SSHHostValidity, 365 * day},
		{&c.CRLValidity, 7 * day},
		{&c.OCSPValidity, time.Hour},
		{&c.Backdate, 5 * time.Minute},
	} {
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
