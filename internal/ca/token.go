package ca

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// APIToken lets a program sign through [API]. The store keeps its hash alone.
type APIToken struct {
	Name    string    `json:"name"`    // who uses it, for the timeline
	Hash    []byte    `json:"-"`       // SHA-256 of the token
	Domains []string  `json:"domains"` // names it may get certificates for, with all below; "*": any
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

// tokenPrefix makes a token recognisable to people and secret scanners.
const tokenPrefix = "postern-sign-"

// AddToken makes a token and returns it: the only time that it is seen.
func (a *Authority) AddToken(ctx context.Context, name string, domains []string, validity time.Duration) (string,
	error,
) {
	if !postern.ValidName(name) {
		return "", postern.Errorf(postern.Invalid, "%q cannot name a token",
			name).WithHint("lower-case letters, digits, dots, hyphens")
	}
	t := APIToken{Name: name, Created: a.now()}
	for _, d := range domains {
		if d != "*" {
			c, err := CleanName(d)
			if err != nil {
				return "", err
			}
			d = c
		}
		t.Domains = append(t.Domains, d)
	}
	if len(t.Domains) == 0 {
		return "", postern.Errorf(postern.Invalid, "a token needs the domains that it may get certificates for").
			WithHint(`"*" stands for any`)
	}
	if validity > 0 {
		t.Expires = t.Created.Add(validity)
	}
	secret := tokenPrefix + rand.Text()
	sum := sha256.Sum256([]byte(secret))
	t.Hash = sum[:]
	err := a.store.AddAPIToken(ctx, t, postern.Event{
		Kind: postern.EventAPIToken, Outcome: postern.OK, Object: name,
		Details: map[string]string{"action": "added", "domains": strings.Join(t.Domains, " ")},
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Tokens returns the tokens, without their secrets.
func (a *Authority) Tokens(ctx context.Context) ([]APIToken, error) { return a.store.APITokens(ctx) }

// RemoveToken removes a token, which is refused from then on.
func (a *Authority) RemoveToken(ctx context.Context, name string) error {
	return a.store.RemoveAPIToken(ctx, name, postern.Event{
		Kind: postern.EventAPIToken, Outcome: postern.OK, Object: name,
		Details: map[string]string{"action": "removed"},
	})
}

// allows reports whether the token may have a certificate for all names.
func (t APIToken) allows(list []string) bool {
	for _, n := range list {
		host := strings.TrimPrefix(n, "*.")
		ok := false
		for _, d := range t.Domains {
			ok = ok || d == "*" || host == d || strings.HasSuffix(host, "."+d)
		}
		if !ok {
			return false
		}
	}
	return true
}
