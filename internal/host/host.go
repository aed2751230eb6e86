// Package host admits hosts to an installation: computers that people sign in to, or
// that run virtual machines.
//
// An administrator adds a host and gets a [Token], which admits one key once. The host
// signs a certificate request with it and gets a client certificate, by which the server
// knows it from then on, and what its sshd needs: host certificates, the user CAs, the
// revocation list. It fetches these again before they end. The package knows both sides
// of the protocol; what a host does with what it fetched is not its business.
package host

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/postern-project/postern"
)

// Invitation admits a host.
type Invitation struct {
	Host    postern.Host
	Hash    []byte    // of the token
	Expires time.Time // of the token
}

// Store keeps hosts and what admits them. Each method is one durable transaction and
// safe for concurrent use, also by several servers. The event's Object becomes the host's
// name; it names who did it.
type Store interface {
	// AddHosts adds all hosts or none, with their tokens. It fails with Conflict if there is
	// a host of that name that was not removed; with again, it invites such a host anew,
	// unless it is suspended (Denied), and takes no names, labels and groups from here.
	AddHosts(ctx context.Context, by postern.Actor, list []Invitation, again bool, event postern.Event) error
	// ChangeHost changes names, labels and groups.
	ChangeHost(ctx context.Context, by postern.Actor, name string, change func(*postern.Host) error,
		event postern.Event) error
	// SetHostStatus suspends, resumes (HostJoined, whether it has joined or not) or removes
	// a host, and reports whether it had another status. A removed host's certificates
	// are revoked, also those of servers for names that it alone has; its tokens are gone.
	SetHostStatus(ctx context.Context, by postern.Actor, name string, status postern.HostStatus,
		event postern.Event) (changed bool, err error)
	// Host returns a NotFound error for a name that no host ever had.
	Host(ctx context.Context, name string) (postern.Host, error)
	// Hosts returns all hosts but those that were removed, by name.
	Hosts(ctx context.Context) ([]postern.Host, error)
}

// DefaultValidity is how long a token admits a host unless another time is asked for,
// and MaxValidity the longest time that may be.
const (
	DefaultValidity = 24 * time.Hour
	MaxValidity     = 30 * 24 * time.Hour
)

// Invite adds hosts, see Store.AddHosts, and returns a token for each.
func Invite(ctx context.Context, s Store, by postern.Actor, hosts []postern.Host, o InviteOptions) ([]Token, error) {
	if o.Validity == 0 {
		o.Validity = DefaultValidity
	}
	if o.Validity < time.Minute || o.Validity > MaxValidity {
		return nil, postern.Errorf(postern.Invalid, "a token admits for a minute to %d days, not %v",
			MaxValidity/(24*time.Hour), o.Validity)
	}
	var tokens []Token
	var list []Invitation
	for _, h := range hosts {
		if err := h.Validate(); err != nil {
			return nil, err
		}
		t := newToken(o.Root)
		tokens = append(tokens, t)
		list = append(list, Invitation{Host: h, Hash: t.Hash(), Expires: time.Now().Add(o.Validity)})
	}
	return tokens, s.AddHosts(ctx, by, list, o.Again, o.Event)
}

// InviteOptions say how hosts are invited.
type InviteOptions struct {
	Root     *x509.Certificate // which the hosts will trust
	Validity time.Duration     // of the tokens; 0: DefaultValidity
	Again    bool              // also a host that there is
	Event    postern.Event     // names who invites
}

// Fingerprint returns the SHA-256 of a certificate.
func Fingerprint(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }
