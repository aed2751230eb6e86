package ca

import (
	"context"
	"encoding/pem"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Role says what an issuer signs.
type Role string

// The roles. A role's first issuer has the role's name as its ID; the ones that
// follow it are server-2, server-3 and so on.
const (
	Root    Role = "root"     // the intermediates
	Server  Role = "server"   // server certificates
	Client  Role = "client"   // client certificates
	SSHUser Role = "ssh-user" // SSH user certificates
	SSHHost Role = "ssh-host" // SSH host certificates
)

// Issuer is a key that signs, and the certificate that says so.
type Issuer struct {
	ID          string
	Role        Role
	Certificate []byte // DER; nil for the SSH roles, which have none
	PublicKey   []byte // PKIX, DER
	Key         []byte // PKCS#8, sealed by the Store; nil when it is not on this machine
	KeyURI      string // of the key, if it is in an HSM
	Created     time.Time
	Revoked     time.Time // when its certificate was; zero: not revoked
	Retired     time.Time // see [Authority.Retire]; zero: others trust it
	// Cross are certificates of a root's key that other roots signed: DER, one after the other.
	Cross []byte
}

// Profile says what an X.509 certificate is for.
type Profile string

// The profiles.
const (
	ProfileIntermediate Profile = "intermediate"
	ProfileCross        Profile = "cross" // of a root's key, by another root
	ProfileServer       Profile = "server"
	ProfileClient       Profile = "client"
	ProfileHost         Profile = "host" // a host's, which it shows to the server
	ProfileOCSP         Profile = "ocsp" // signs OCSP answers for its issuer
)

// Certificate is an issued X.509 certificate as the Store keeps it.
type Certificate struct {
	Serial  string   `json:"serial"` // lower-case hex, no leading zero
	Issuer  string   `json:"issuer"` // Issuer.ID
	Profile Profile  `json:"profile"`
	Policy  Profile  `json:"policy,omitempty"` // the further profile by which a server's was issued
	Person  string   `json:"person,omitempty"` // who holds it, or asked for it
	Label   string   `json:"label,omitempty"`  // the person's own words
	Subject string   `json:"subject"`
	Names   []string `json:"names,omitempty"` // subject alternative names
	// SHA-256 of the public key's PKIX form, lower-case hex
	Key       string                   `json:"key"`
	DER       []byte                   `json:"-"`
	NotBefore time.Time                `json:"not_before"`
	NotAfter  time.Time                `json:"not_after"`
	Issued    time.Time                `json:"issued"`
	Renews    string                   `json:"renews,omitempty"` // serial of the certificate that this one follows
	Revoked   time.Time                `json:"revoked,omitzero"` // zero: not revoked
	Reason    postern.RevocationReason `json:"reason,omitempty"` // why it was revoked
}

// Status returns "revoked", "expired" or "valid" as of now.
func (c Certificate) Status(now time.Time) string {
	switch {
	case !c.Revoked.IsZero():
		return "revoked"
	case !now.Before(c.NotAfter):
		return "expired"
	}
	return "valid"
}

// For returns whom or what a certificate is for: a person and their label, names, else
// its subject.
func (c Certificate) For() string {
	switch {
	case c.Profile == ProfileClient:
		return strings.TrimSpace(c.Person + " " + c.Label)
	case len(c.Names) > 0:
		return strings.Join(c.Names, " ")
	}
	return c.Subject
}

// Filter selects certificates. Zero fields select everything.
type Filter struct {
	Person  string
	Profile Profile
	Leaves  bool                     // none of the authority's own: of its CAs and signers of OCSP answers
	Issuers []string                 // issued by one of these CAs
	Name    string                   // has exactly this subject alternative name
	Key     string                   // has this Certificate.Key
	Reason  postern.RevocationReason // was revoked for it
	Valid   time.Time                // neither revoked nor expired at that time
	After   string                   // serials in order of issue, after this one: for paging
	Limit   int                      // 0: all
}

// Revocation is one entry of a CRL.
type Revocation struct {
	Serial   string
	Time     time.Time
	Reason   postern.RevocationReason
	Revision int64 // of its issuer when it was recorded
}

// CRL is a signed revocation list.
type CRL struct {
	Issuer     string
	Number     int64 // RFC 5280 section 5.2.3; each list's is larger than the last one's
	Revision   int64 // of the revocations that it holds
	DER        []byte
	ThisUpdate time.Time
	NextUpdate time.Time
	Complete   time.Time // when all that it holds was read: later lists add to the last one
}

// PEM returns the list as servers read it from a file.
func (c CRL) PEM() []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: c.DER}) }

// SSHCertificate is an issued SSH certificate as the Store keeps it.
type SSHCertificate struct {
	Serial      uint64    `json:"serial"`
	Issuer      string    `json:"issuer"` // Issuer.ID
	KeyID       string    `json:"key_id"` // what sshd logs: the person's name, or the host's
	Person      string    `json:"person,omitempty"`
	Principals  []string  `json:"principals"`
	Fingerprint string    `json:"fingerprint"` // of the certified key: SHA256:…
	Certificate []byte    `json:"-"`           // SSH wire format
	ValidAfter  time.Time `json:"valid_after"`
	ValidBefore time.Time `json:"valid_before"`
	Issued      time.Time `json:"issued"`
	Revoked     time.Time `json:"revoked,omitzero"`
}

// SSHRevocations is what a KRL says of the certificates that one issuer signed.
type SSHRevocations struct {
	Issuer  string
	Serials []uint64 // ascending
}

// Store keeps what the authority knows. Each method is one transaction, durable
// when it returns, and safe for concurrent use, also by several servers. A
// method that takes events appends them to the timeline in that transaction.
type Store interface {
	// Seal encrypts a secret, bound to purpose and id; Unseal reverses it.
	Seal(purpose, id string, plaintext []byte) ([]byte, error)
	Unseal(purpose, id string, sealed []byte) ([]byte, error)

	// Append adds events to the timeline, all or none.
	Append(ctx context.Context, events ...postern.Event) error
	// Person returns the person of that name, or a NotFound error.
	Person(ctx context.Context, name string) (postern.Person, error)
	// Generation changes whenever a person, a credential or an issuer has changed.
	Generation(ctx context.Context) (int64, error)

	// AddIssuers adds all or, if one of the IDs exists, none (Conflict).
	AddIssuers(ctx context.Context, issuers []Issuer, certs []Certificate, events ...postern.Event) error
	// AddRoot is AddIssuers for a root and its intermediates. It keeps the cross-signed
	// certificate of the root before it, old, with that one.
	AddRoot(ctx context.Context, issuers []Issuer, certs []Certificate, old string, cross []byte,
		events ...postern.Event) error
	// Retire marks CAs as retired, and revokes the certificates with these serial numbers. It
	// fails with Conflict, and changes nothing, while certificates that they issued to others
	// are valid, unless it is to revoke those, too. Their number is added to the event's
	// details, as "certificates".
	Retire(ctx context.Context, ids, serials []string, revoke bool, at time.Time, event postern.Event) error
	// Outstanding returns how many valid certificates, of X.509 and SSH, each CA has issued to
	// others; CAs without any are left out.
	Outstanding(ctx context.Context, now time.Time) (map[string]int, error)
	// Issuers returns all, oldest first.
	Issuers(ctx context.Context) ([]Issuer, error)
	// SetIssuerKey replaces the sealed key; nil removes it.
	SetIssuerKey(ctx context.Context, id string, sealed []byte, event postern.Event) error
	// CASetting returns "" for what was never set.
	CASetting(ctx context.Context, name string) (string, error)
	// SetCASetting changes the Generation, too.
	SetCASetting(ctx context.Context, name, value string) error

	// AddCertificate records c. It fails with Unavailable if the issuer was revoked,
	// unless c signs OCSP answers, and with Denied if the key was revoked for
	// compromise or the actor's credential is not valid any more. If c is a
	// client certificate its person must be active and its key in no other person's
	// client certificate (Denied), and it becomes the person's credential.
	AddCertificate(ctx context.Context, by postern.Actor, c Certificate, event postern.Event) error
	// Certificate returns a NotFound error for a serial that was never issued.
	Certificate(ctx context.Context, serial string) (Certificate, error)
	// Certificates returns them newest first.
	Certificates(ctx context.Context, f Filter) ([]Certificate, error)
	// RevokeCertificate records the revocation, revokes the credential, bumps
	// the issuer's revision and the generation. Conflict: it was revoked before.
	RevokeCertificate(ctx context.Context, serial string, reason postern.RevocationReason, at time.Time,
		event postern.Event) error
	// RevokeIssuer is RevokeCertificate for the certificate of the issuer of that ID.
	// With it are revoked, for a reason of their own, all certificates that the issuer
	// made for others; their number is added to the event's details, as "certificates".
	RevokeIssuer(ctx context.Context, id, serial string, reason, theirs postern.RevocationReason, at time.Time,
		event postern.Event) error

	// Revision grows by 1 whenever certificates of the issuer are revoked.
	Revision(ctx context.Context, issuer string) (int64, error)
	// Revocations returns, as of one moment, what was revoked after a revision (-1: all) of
	// that issuer's certificates that expire after the given time, and the revision.
	Revocations(ctx context.Context, issuer string, expireAfter time.Time, since int64) ([]Revocation, int64, error)
	// CRL returns the newest list, or a NotFound error. Of a list whose number is known it
	// leaves out the DER.
	CRL(ctx context.Context, issuer string, known int64) (CRL, error)
	// PutCRL keeps the list if its number follows the newest one's (1 is the
	// first), and reports whether it did.
	PutCRL(ctx context.Context, crl CRL) (bool, error)

	// SSHSerials returns the first of n consecutive serial numbers, at least 1,
	// none of which is ever returned again.
	SSHSerials(ctx context.Context, n int) (uint64, error)
	// AddSSHCertificate records c, whose key must not be revoked (Denied), while the
	// actor's credential is valid (Denied). If c.Person is set, the person must
	// be active (Denied), and it becomes the person's credential.
	AddSSHCertificate(ctx context.Context, by postern.Actor, c SSHCertificate, event postern.Event) error
	SSHCertificate(ctx context.Context, serial uint64) (SSHCertificate, error)
	// SSHCertificates returns a person's, or everybody's for "", newest first.
	SSHCertificates(ctx context.Context, person string) ([]SSHCertificate, error)
	// RevokeSSHCertificate works as RevokeCertificate does.
	RevokeSSHCertificate(ctx context.Context, serial uint64, at time.Time, event postern.Event) error
	// RevokeSSHKey revokes a plain key, given as SSH wire format.
	RevokeSSHKey(ctx context.Context, fingerprint string, key []byte, at time.Time, event postern.Event) error
	// SSHRevoked returns, as of one moment, all that a KRL holds: revoked serials
	// of certificates that are not yet expired, those of suspended people among them, and
	// revoked keys; and a number that grows with each change.
	SSHRevoked(ctx context.Context, now time.Time) (certs []SSHRevocations, keys [][]byte, version int64, err error)

	// AddAPIToken keeps a token by its SHA-256.
	AddAPIToken(ctx context.Context, t APIToken, event postern.Event) error
	// APIToken returns the token of that SHA-256, or a NotFound error.
	APIToken(ctx context.Context, hash []byte) (APIToken, error)
	APITokens(ctx context.Context) ([]APIToken, error)
	// RemoveAPIToken returns a NotFound error if there is none of that name.
	RemoveAPIToken(ctx context.Context, name string, event postern.Event) error
}
