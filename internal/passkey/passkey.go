// Package passkey registers people's passkeys and checks that a person has one
// (W3C Web Authentication Level 3).
//
// There is one relying party, the portal's host: a passkey is made and used on the
// portal's pages alone. Every ceremony asks for user verification (a PIN, a finger, a
// face), so that a passkey is two factors. A challenge is valid once and for a short
// time; between the two halves of a ceremony the browser keeps it, sealed.
package passkey

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/postern-project/postern"
)

// Life is how long a challenge is valid.
const Life = 5 * time.Minute

// Passkey is one that was registered.
type Passkey struct {
	postern.Credential
	Raw        []byte   // credential ID that the authenticator chose, 1 to 1023 bytes
	PublicKey  []byte   // COSE_Key (RFC 9052)
	Counter    uint32   // signature counter at the last use; 0 where the authenticator has none
	AAGUID     []byte   // model, 16 bytes; zeros where it is not told
	Transports []string // how the browser reaches it: "internal", "hybrid", "usb"
	Synced     bool     // whether it may be on several of the person's computers (backup eligible)
}

// ID returns the ID of the credential that a passkey is: half the SHA-256 hash of
// what the authenticator chose, in lower-case hex.
func ID(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// Use is one use of a challenge.
type Use struct {
	Challenge [sha256.Size]byte // hash
	Expires   time.Time
}

// Store keeps passkeys and which challenges were used. Each method is one transaction,
// and safe for concurrent use by several servers.
type Store interface {
	// PasskeysOf returns a person's passkeys that are not revoked.
	PasskeysOf(ctx context.Context, person string) ([]Passkey, error)
	// Passkey returns one with its person, or an error of code [postern.NotFound].
	Passkey(ctx context.Context, id string) (Passkey, postern.Person, error)
	// AddPasskey adds one to an active person, appends the event and uses the challenge.
	// It fails with Conflict for a passkey that is known or a challenge that was used,
	// and with Denied once the actor's credential is not valid.
	AddPasskey(ctx context.Context, by postern.Actor, k Passkey, u Use, e postern.Event) error
	// UsePasskey uses the challenge and stores the counter. It fails with Denied for a
	// challenge that was used, for a counter that is not above the stored one unless
	// both are 0, and unless passkey and person are active.
	UsePasskey(ctx context.Context, id string, counter uint32, u Use) error
	// RenamePasskey changes the label of one of the actor's passkeys. It fails with
	// NotFound if they have no such one.
	RenamePasskey(ctx context.Context, by postern.Actor, id, label string) error
}

// Sealer encrypts what a browser keeps for the server, bound to a purpose and a name.
type Sealer interface {
	Seal(purpose, id string, plaintext []byte) ([]byte, error)
	Unseal(purpose, id string, sealed []byte) ([]byte, error)
}

// Config describes the relying party.
type Config struct {
	URL    string // of the portal: https://id.example.com[:port]
	Name   string // for people to read
	Secret []byte // the same on every server and after every restart; user handles are derived from it
}

// Party is the relying party. It is safe for concurrent use.
type Party struct {
	web    *webauthn.WebAuthn
	store  Store
	seal   Sealer
	secret []byte
	now    func() time.Time
}

// New returns the relying party. It fails with [postern.Invalid] for a host that is an
// IP address: browsers make no passkeys for those.
func New(c Config, s Store, seal Sealer) (*Party, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, postern.Errorf(postern.Invalid, "%q is not the https address of a portal", c.URL)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil, postern.Errorf(postern.Invalid, "there are no passkeys for an IP address").
			WithHint("give the portal a name")
	}
	timeout := webauthn.TimeoutConfig{Enforce: true, Timeout: Life, TimeoutUVD: Life}
	web, err := webauthn.New(&webauthn.Config{
		RPID: strings.ToLower(u.Hostname()), RPDisplayName: c.Name,
		RPOrigins:             []string{"https://" + strings.ToLower(u.Host)},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(),
			UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: timeout, Registration: timeout},
	})
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "passkeys cannot be set up: %w", err)
	}
	return &Party{web: web, store: s, seal: seal, secret: c.Secret, now: time.Now}, nil
}

// Rename changes what the actor calls one of their passkeys. It fails with
// [postern.NotFound] if they have no such one.
func (p *Party) Rename(ctx context.Context, by postern.Actor, id, label string) error {
	return p.store.RenamePasskey(ctx, by, id, label)
}

// handle returns the user handle of a person: 32 bytes that tell nothing about them.
func (p *Party) handle(person string) []byte {
	mac := hmac.New(sha256.New, p.secret)
	mac.Write([]byte("passkey user handle\n" + person))
	return mac.Sum(nil)
}

// user is a person as the library asks for one.
type user struct {
	handle []byte
	person postern.Person
	keys   []Passkey
}

func (u user) WebAuthnID() []byte   { return u.handle }
func (u user) WebAuthnName() string { return u.person.Name }

// WebAuthnDisplayName returns what an authenticator shows.
func (u user) WebAuthnDisplayName() string {
	if u.person.FullName != "" {
		return u.person.FullName
	}
	return u.person.Name
}

// WebAuthnCredentials returns the person's passkeys in the library's type.
func (u user) WebAuthnCredentials() (list []webauthn.Credential) {
	for _, k := range u.keys {
		c := webauthn.Credential{ID: k.Raw, PublicKey: k.PublicKey}
		for _, t := range k.Transports {
			c.Transport = append(c.Transport, protocol.AuthenticatorTransport(t))
		}
		c.Flags.UserVerified, c.Flags.BackupEligible = true, k.Synced
		c.Authenticator.AAGUID, c.Authenticator.SignCount = k.AAGUID, k.Counter
		list = append(list, c)
	}
	return list
}
