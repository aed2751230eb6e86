package posterntest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"
)

// Flags of authenticator data (WebAuthn Level 3, 6.1).
const (
	UserPresent    = 1 << 0
	UserVerified   = 1 << 2
	BackupEligible = 1 << 3
	hasCredential  = 1 << 6
)

// Authenticator keeps one passkey, and answers as a browser does with it. A test may
// change what it lies about.
type Authenticator struct {
	Origin string // that the browser tells
	RPID   string // whose passkey it is
	Flags  byte   // of each answer
	Count  uint32 // the counter of the last answer
	Step   uint32 // by which the counter grows with each answer; 0 if it has none

	id, handle []byte
	key        *ecdsa.PrivateKey
	t          testing.TB
}

// NewAuthenticator returns an authenticator at a relying party, with user verification.
func NewAuthenticator(t testing.TB, origin, rpID string) *Authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 32)
	_, _ = rand.Read(id)
	return &Authenticator{
		Origin: origin, RPID: rpID, Flags: UserPresent | UserVerified, Step: 1, id: id, key: key, t: t,
	}
}

// Pose makes it name another's person, and with passkey also another's passkey, while it
// signs with its own key.
func (a *Authenticator) Pose(as *Authenticator, passkey bool) {
	a.handle = as.handle
	if passkey {
		a.id = as.id
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Make answers the options of a registration: a RegistrationResponse as JSON.
func (a *Authenticator) Make(options []byte) []byte {
	a.t.Helper()
	var o struct {
		Challenge string
		User      struct{ ID string }
	}
	if err := json.Unmarshal(options, &o); err != nil {
		a.t.Fatal(err)
	}
	var err error
	if a.handle, err = base64.RawURLEncoding.DecodeString(o.User.ID); err != nil {
		a.t.Fatal(err)
	}
	public, err := a.key.PublicKey.Bytes()
	if err != nil {
		a.t.Fatal(err)
	}
	data := a.data(hasCredential)
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.id)))
	data = append(data, a.id...)
	// COSE_Key: {1: EC2, 3: ES256, -1: P-256, -2: x, -3: y}
	data = append(data, 0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32)
	data = append(data, public[1:33]...)
	data = append(data, 0x22, 0x58, 32)
	data = append(data, public[33:]...)
	var attested bytes.Buffer // {"fmt": "none", "attStmt": {}, "authData": data}
	attested.WriteString("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58")
	attested.WriteByte(byte(len(data)))
	attested.Write(data)
	return a.answer(map[string]any{
		"clientDataJSON": b64(a.clientData("webauthn.create", o.Challenge)), "attestationObject": b64(attested.Bytes()),
		"transports": []string{"internal"},
	})
}

// Sign answers the options of a sign-in: an AuthenticationResponse as JSON.
func (a *Authenticator) Sign(options []byte) []byte {
	a.t.Helper()
	var o struct{ Challenge string }
	if err := json.Unmarshal(options, &o); err != nil {
		a.t.Fatal(err)
	}
	data, client := a.data(0), a.clientData("webauthn.get", o.Challenge)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(data[:len(data):len(data)], hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		a.t.Fatal(err)
	}
	return a.answer(map[string]any{
		"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature),
		"userHandle": b64(a.handle),
	})
}

// data returns the authenticator data, without a credential.
func (a *Authenticator) data(more byte) []byte {
	a.Count += a.Step
	rp := sha256.Sum256([]byte(a.RPID))
	return binary.BigEndian.AppendUint32(append(rp[:], a.Flags|more), a.Count)
}

func (a *Authenticator) clientData(kind, challenge string) []byte {
	b, err := json.Marshal(map[string]any{
		"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *Authenticator) answer(response map[string]any) []byte {
	b, err := json.Marshal(map[string]any{
		"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "response": response,
		"authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}
