package postern

import "time"

// CredentialKind is a kind of credential.
type CredentialKind string

// The kinds of credential, and what identifies one of each.
const (
	X509Certificate CredentialKind = "x509"      // serial number, lower-case hex
	SSHCertificate  CredentialKind = "ssh-cert"  // serial number, decimal
	SSHKey          CredentialKind = "ssh-key"   // fingerprint, SHA256:…
	YubiKey         CredentialKind = "yubikey"   // public ID, modhex
	TOTP            CredentialKind = "totp"      // random identifier
	HOTP            CredentialKind = "hotp"      // random identifier
	RecoveryCode    CredentialKind = "recovery"  // random identifier; the code itself is stored hashed
	BackupCode      CredentialKind = "backup"    // the first 4 bytes of its hash, modhex
	Passkey         CredentialKind = "passkey"   // half the hash of what its authenticator chose, lower-case hex
	APIToken        CredentialKind = "api-token" // name; a program that requests certificates
)

// CredentialStatus says whether a credential is valid.
type CredentialStatus string

// A disabled credential can be enabled again; a revoked one cannot.
const (
	CredentialActive   CredentialStatus = "active"
	CredentialDisabled CredentialStatus = "disabled"
	CredentialRevoked  CredentialStatus = "revoked"
)

// Credential is what a person or a program authenticates with. It never carries
// the secret.
type Credential struct {
	Kind     CredentialKind   `json:"kind"`
	ID       string           `json:"id"` // unique within Kind
	Person   string           `json:"person,omitempty"`
	Label    string           `json:"label,omitempty"` // the person's own words: "phone", "blue key"
	Status   CredentialStatus `json:"status"`
	Created  time.Time        `json:"created"`
	Expires  time.Time        `json:"expires,omitzero"`
	LastUsed time.Time        `json:"last_used,omitzero"`
}

// Link returns the link that joins events which speak of this credential.
func (c Credential) Link() Link { return Link{Kind: string(c.Kind), ID: c.ID} }
