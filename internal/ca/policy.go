package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Policy says what the certificates of a profile are like. There are the profiles
// server, client, ssh-user and ssh-host; each further one is for servers, which may
// ask for it by its name.
type Policy struct {
	Profile  Profile       // its name
	Text     string        // what it is for, in a few words; not for SSH
	Validity time.Duration // unless another is asked for; 0: the authority's default, or Max if that is less
	Max      time.Duration // the longest that may be asked for; 0: the longest that the authority permits
	Keys     []Algorithm   // the kinds of key that are certified; nil: all that are strong enough. Not for SSH
	SignOnly bool          // an RSA key's certificate does not say keyEncipherment
	OIDs     []string      // certificate policies (RFC 5280 section 4.2.1.4)
}

// The profiles of SSH certificates.
const (
	ProfileSSHUser Profile = "ssh-user"
	ProfileSSHHost Profile = "ssh-host"
)

// settingPolicies holds the configured policies, in JSON.
const settingPolicies = "policies"

// standardPolicies returns the policies of profiles that always exist, without
// anything configured.
func (c Config) standardPolicies() []Policy {
	return []Policy{
		{Profile: ProfileServer, Validity: c.ServerValidity},
		{Profile: ProfileClient, Validity: c.ClientValidity},
		{Profile: ProfileSSHUser, Validity: c.SSHUserValidity},
		{Profile: ProfileSSHHost, Validity: c.SSHHostValidity},
	}
}

// most is the longest validity that a policy may permit.
func (p Policy) most() time.Duration {
	switch p.Profile {
	case ProfileClient:
		return maxClientValidity
	case ProfileSSHUser, ProfileSSHHost:
		return maxSSHValidity
	}
	return MaxServerValidity
}

// ForServers reports whether the profile's certificates are servers'.
func (p Policy) ForServers() bool {
	return p.Profile != ProfileClient && p.Profile != ProfileSSHUser && p.Profile != ProfileSSHHost
}

var profileName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Validate returns an Invalid error that names the first setting which cannot work.
func (p Policy) Validate() error {
	bad := func(format string, args ...any) error {
		return postern.Errorf(postern.Invalid, "profile %s: %s", p.Profile, fmt.Sprintf(format, args...))
	}
	switch {
	case !profileName.MatchString(string(p.Profile)) || p.Profile == ProfileIntermediate ||
		p.Profile == ProfileCross || p.Profile == ProfileOCSP:
		return postern.Errorf(postern.Invalid, "%q cannot be the name of a profile", p.Profile).
			WithHint("a name begins with a letter and has at most 32 small letters, digits and hyphens")
	case len(p.Text) > 200 || strings.ContainsFunc(p.Text, func(r rune) bool { return r < ' ' }):
		return bad("its description is longer than 200 bytes, or not one line")
	case p.Max != 0 && (p.Max < time.Minute || p.Max > p.most()):
		return bad("a longest validity of %v is not between a minute and %d days", p.Max, p.most()/day)
	case p.Validity != 0 && (p.Validity < time.Minute || p.Validity > p.longest()):
		return bad("a validity of %v is not between a minute and %v", p.Validity, p.longest())
	case strings.HasPrefix(string(p.Profile), "ssh-") && (p.Text != "" || p.Keys != nil || p.SignOnly ||
		p.OIDs != nil):
		return bad("an SSH certificate's profile has a validity and nothing else")
	}
	for _, k := range p.Keys {
		if !slices.Contains(certified, k) {
			return bad("keys of type %q are not certified", k)
		}
	}
	for _, o := range p.OIDs {
		if _, err := x509.ParseOID(o); err != nil {
			return bad("%q is not an object identifier", o)
		}
	}
	return nil
}

// longest is the longest validity that may be asked for.
func (p Policy) longest() time.Duration {
	if p.Max == 0 {
		return p.most()
	}
	return p.Max
}

// over returns the policy with what it leaves open taken from the standard one.
func (p Policy) over(standard Policy) Policy {
	p.Max = p.longest()
	if p.Validity == 0 {
		p.Validity = min(standard.Validity, p.Max)
	}
	if p.Text == "" && p.ForServers() {
		p.Text = fmt.Sprintf("server certificates, valid for %s", Lifetime(p.Validity))
	}
	return p
}

// Lifetime writes a length of time: in days, if it is two days or more.
func Lifetime(d time.Duration) string {
	if days := d / day; d%day == 0 && days > 1 {
		return fmt.Sprintf("%d days", days)
	}
	return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
}

// merge returns the policies that take effect: those of the profiles that always
// exist, then the further ones in the order in which they are configured.
func merge(standard, configured []Policy) []Policy {
	var list []Policy
	for _, s := range standard {
		p := s
		if i := slices.IndexFunc(configured, func(c Policy) bool { return c.Profile == s.Profile }); i >= 0 {
			p = configured[i]
		}
		list = append(list, p.over(s))
	}
	for _, c := range configured {
		if !slices.ContainsFunc(list, func(p Policy) bool { return p.Profile == c.Profile }) {
			list = append(list, c.over(standard[0]))
		}
	}
	return list
}

// Policies returns the policies of all profiles that exist.
func (a *Authority) Policies() []Policy {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Clone(a.policies)
}

// policy returns that of a profile, or an error of code NotFound.
func (a *Authority) policy(name Profile) (Policy, error) {
	var names []string
	for _, p := range a.Policies() {
		if p.Profile == name {
			return p, nil
		}
		names = append(names, string(p.Profile))
	}
	return Policy{}, postern.Errorf(postern.NotFound, "there is no profile %q", name).
		WithHint("one of %s", strings.Join(names, ", "))
}

// serverPolicy returns that of a profile for servers; "" is ProfileServer.
func (a *Authority) serverPolicy(name Profile) (Policy, error) {
	if name == "" {
		name = ProfileServer
	}
	p, err := a.policy(name)
	if err == nil && !p.ForServers() {
		return p, postern.Errorf(postern.NotFound, "the profile %s is not for servers", name)
	}
	return p, err
}

// SetPolicies configures the profiles, for every process that uses the store, in
// place of what was configured before.
func (a *Authority) SetPolicies(ctx context.Context, list []Policy) error {
	for i, p := range list {
		if err := p.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(list[:i], func(q Policy) bool { return q.Profile == p.Profile }) {
			return postern.Errorf(postern.Invalid, "there are two profiles %s", p.Profile)
		}
	}
	value := ""
	if len(list) > 0 {
		data, err := json.Marshal(list)
		if err != nil {
			return postern.Errorf(postern.Internal, "keep the profiles: %w", err)
		}
		value = string(data)
	}
	if have, err := a.store.CASetting(ctx, settingPolicies); err != nil || have == value {
		return err
	}
	if err := a.store.SetCASetting(ctx, settingPolicies, value); err != nil {
		return err
	}
	return a.Reload(ctx)
}

// readPolicies returns the policies of all profiles as they are configured now.
func (a *Authority) readPolicies(ctx context.Context) ([]Policy, error) {
	value, err := a.store.CASetting(ctx, settingPolicies)
	if err != nil {
		return nil, err
	}
	var configured []Policy
	if value != "" {
		if err := json.Unmarshal([]byte(value), &configured); err != nil {
			return nil, postern.Errorf(postern.Internal, "the store's profiles of certificates cannot be read: %w",
				err)
		}
	}
	return merge(a.cfg.standardPolicies(), configured), nil
}

// checkKey returns an Invalid error for a kind of key that the profile does not
// certify.
func (p Policy) checkKey(pub crypto.PublicKey) error {
	if len(p.Keys) == 0 || slices.Contains(p.Keys, algorithmOf(pub)) {
		return nil
	}
	var names []string
	for _, k := range p.Keys {
		names = append(names, string(k))
	}
	alg := algorithmOf(pub)
	return postern.Errorf(postern.Invalid, "the profile %s does not certify a key of type %s", p.Profile, alg).
		WithHint("make a key of type %s", strings.Join(names, " or "))
}

// algorithmOf names a key's kind, as Algorithm does where it knows it.
func algorithmOf(pub crypto.PublicKey) Algorithm {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return Algorithm("ecdsa-" + strings.ToLower(strings.ReplaceAll(k.Curve.Params().Name, "-", "")))
	case *rsa.PublicKey:
		return Algorithm(fmt.Sprintf("rsa-%d", k.N.BitLen()))
	case ed25519.PublicKey:
		return Ed25519
	}
	return Algorithm(fmt.Sprintf("%T", pub))
}

// certified are the kinds of key that a policy may name. Keys of the last two are not
// made here.
var certified = []Algorithm{P256, P384, RSA3072, RSA4096, "rsa-2048", "ecdsa-p521"}

// newKey makes a key of the first kind that the profile certifies.
func (p Policy) newKey() (crypto.Signer, error) {
	alg := P256
	if i := slices.IndexFunc(p.Keys, Algorithm.valid); i >= 0 {
		alg = p.Keys[i]
	}
	return GenerateKey(alg)
}
