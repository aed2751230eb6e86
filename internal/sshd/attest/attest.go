// Package attest checks that an SSH key was made in a FIDO2 key and cannot leave it: the
// attestation that ssh-keygen -O write-attestation= writes.
//
// Use it where a key is enrolled. That a signature was made with a touch and after user
// verification is sshd's to check, at each login.
package attest

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// Key is what an attestation proves of a key.
type Key struct {
	Public ssh.PublicKey
	// AAGUID names the model, all devices of which have the same (WebAuthn section 6.5.2),
	// as eight, four, four, four and twelve hexadecimal digits.
	AAGUID string
	Maker  string // the organisation that the attestation certificate names
	Model  string // what the model is called, "" unless the metadata says it
	// VerifyRequired says that the FIDO2 key itself asks for its PIN, or another user
	// verification, before each signature: ssh-keygen -O verify-required.
	VerifyRequired bool
}

// MaxSize bounds an attestation, bytes: they have about one thousand.
const MaxSize = 16 << 10

// Trust says who may vouch for FIDO2 keys.
type Trust struct {
	Roots    *x509.CertPool // of makers
	Metadata *Metadata      // of models, with their makers' roots; nil: none is known
}

// Check returns what an attestation proves of a key: that a FIDO2 key made it for this
// challenge, and that a trusted maker vouches for that FIDO2 key at the time now. It
// fails with [postern.Invalid] for what cannot be read, and with [postern.Denied] for
// what proves something else or nothing, and for a model of which the metadata warns.
//
// The format is that of OpenSSH's PROTOCOL.u2f, ssh-sk-attest-v01, with the signature of
// a packed attestation (WebAuthn section 8.2). That of U2F devices, which cannot ask
// for a PIN, is refused.
func Check(attestation, challenge []byte, key ssh.PublicKey, trust Trust, now time.Time) (Key, error) {
	a, err := parse(attestation)
	if err != nil {
		return Key{}, postern.Errorf(postern.Invalid, "the attestation cannot be read: %w", err).
			WithHint("give the file that ssh-keygen -O write-attestation=FILE writes, of OpenSSH 8.5 or newer")
	}
	aaguid := uuid(a.data.aaguid)
	found, err := trust.model(aaguid)
	if err != nil {
		return Key{}, err
	}
	roots := trust.Roots.Clone()
	for _, c := range found.roots {
		roots.AddCert(c)
	}
	if err := a.vouched(challenge, roots, now); err != nil {
		return Key{}, err
	}
	if err := a.data.isOf(key); err != nil {
		return Key{}, err
	}
	k := Key{
		Public: key, AAGUID: aaguid, Model: found.description,
		VerifyRequired: a.data.protect == userVerificationRequired,
	}
	if len(a.certificate.Subject.Organization) > 0 {
		k.Maker = a.certificate.Subject.Organization[0]
	}
	return k, nil
}

// model returns what the metadata says of a model. It fails with Denied if keys in it are
// not to be trusted.
func (t Trust) model(aaguid string) (model, error) {
	if t.Metadata == nil {
		return model{}, nil
	}
	m := t.Metadata.models[aaguid]
	if m.bad != "" {
		return m, postern.Errorf(postern.Denied, "keys in a %s are not trusted: the FIDO Alliance reports %s",
			cmp.Or(m.description, aaguid), m.bad).WithHint("use a FIDO2 key of another model")
	}
	return m, nil
}

//go:embed roots.pem
var makersRoots []byte

// Roots returns the roots of makers that Postern knows, to which others may be added.
func Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(makersRoots)
	return pool
}

// attestation is OpenSSH's file, read.
type attestation struct {
	certificate *x509.Certificate
	signature   []byte
	raw         []byte // the authenticator data, which is signed
	data        authenticatorData
}

const version = "ssh-sk-attest-v01"

func parse(b []byte) (*attestation, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(b), MaxSize)
	}
	var f struct {
		Version                      string
		Certificate, Signature, Data []byte
		Flags                        uint32
		Reserved                     []byte
	}
	if err := ssh.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != version || f.Flags != 0 || len(f.Reserved) > 0 {
		return nil, fmt.Errorf("it is no %s, or its reserved fields are not empty", version)
	}
	a := &attestation{signature: f.Signature}
	var err error
	if a.certificate, err = x509.ParseCertificate(f.Certificate); err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	if err := strict.Unmarshal(f.Data, &a.raw); err != nil {
		return nil, fmt.Errorf("its authenticator data: %w", err)
	}
	if a.data, err = parseData(a.raw); err != nil {
		return nil, fmt.Errorf("its authenticator data: %w", err)
	}
	return a, nil
}

// idFIDOGenCeAAGUID is the extension of an attestation certificate that has the AAGUID
// (WebAuthn section 8.2.1).
var idFIDOGenCeAAGUID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}

// vouched checks that the device's certificate is of a maker among roots, is an
// attestation certificate, and has signed the data and the challenge.
func (a *attestation) vouched(challenge []byte, roots *x509.CertPool, now time.Time) error {
	c := a.certificate
	hash := sha256.Sum256(challenge) // what OpenSSH takes as the hash of the client data
	if err := c.CheckSignature(x509.ECDSAWithSHA256, slices.Concat(a.raw, hash[:]), a.signature); err != nil {
		return postern.Errorf(postern.Denied, "the attestation is not signed for this challenge").
			WithHint("make a new key with the challenge that the server gave")
	}
	_, err := c.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return postern.Errorf(postern.Denied, "no known maker vouches for this FIDO2 key: %s", c.Issuer).
			WithHint("an administrator who trusts the maker puts its root into fido-roots.pem in the state directory")
	}
	if c.Version != 3 || c.IsCA || !slices.Contains(c.Subject.OrganizationalUnit, "Authenticator Attestation") {
		return postern.Errorf(postern.Denied, "the certificate of the attestation is no attestation certificate")
	}
	for _, e := range c.Extensions {
		var aaguid []byte
		if !e.Id.Equal(idFIDOGenCeAAGUID) {
			continue
		}
		if rest, err := asn1.Unmarshal(e.Value, &aaguid); err != nil || len(rest) > 0 || !bytes.Equal(aaguid,
			a.data.aaguid) {
			return postern.Errorf(postern.Denied, "the attestation is of another model than its certificate says")
		}
	}
	return nil
}

// authenticatorData is WebAuthn's, section 6.1, of a credential that was made just now.
type authenticatorData struct {
	application []byte // SHA-256 of what it is for
	aaguid      []byte
	key         coseKey
	protect     int // CTAP 2.1 section 12.1: credProtect; 0 without
}

// userVerificationRequired is the policy of credProtect under which every signature
// needs user verification.
const userVerificationRequired = 3

// Flags of authenticator data.
const (
	userPresent    = 1 << 0
	userVerified   = 1 << 2
	backupEligible = 1 << 3
	backedUp       = 1 << 4
	hasCredential  = 1 << 6
	hasExtensions  = 1 << 7
)

// coseKey is a public key of RFC 9052 section 7.
type coseKey struct {
	Type      int    `cbor:"1,keyasint"`
	Algorithm int    `cbor:"3,keyasint"`
	Curve     int    `cbor:"-1,keyasint"`
	X         []byte `cbor:"-2,keyasint"`
	Y         []byte `cbor:"-3,keyasint,omitempty"`
}

// strict reads CBOR as CTAP2 writes it.
var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxMapPairs: 16, MaxArrayElements: 16,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}()

func parseData(b []byte) (d authenticatorData, err error) {
	const fixed = 32 + 1 + 4 + 16 + 2
	if len(b) < fixed {
		return d, errors.New("it ends too soon")
	}
	flags := b[32]
	d.application, d.aaguid = b[:32], b[37:53]
	credential := int(binary.BigEndian.Uint16(b[53:]))
	switch {
	case flags&hasCredential == 0 || flags&userPresent == 0:
		return d, errors.New("it is not of a key that was made with a touch")
	case flags&(backupEligible|backedUp) != 0:
		return d, errors.New("the key can be copied to other devices")
	case len(b) < fixed+credential:
		return d, errors.New("it ends too soon")
	}
	rest, err := strict.UnmarshalFirst(b[fixed+credential:], &d.key)
	if err != nil {
		return d, err
	}
	if flags&hasExtensions != 0 {
		var extensions struct {
			Protect int `cbor:"credProtect"`
		}
		if rest, err = strict.UnmarshalFirst(rest, &extensions); err != nil {
			return d, err
		}
		d.protect = extensions.Protect
	}
	if len(rest) > 0 {
		return d, errors.New("there is more behind it")
	}
	if d.protect == userVerificationRequired && flags&userVerified == 0 {
		return d, errors.New("it requires user verification, and was made without")
	}
	return d, nil
}

// Numbers of COSE (RFC 9053): key types, algorithms and curves.
const (
	coseOKP, coseEC2        = 1, 2
	coseES256, coseEdDSA    = -7, -8
	coseP256, coseEd25519   = 1, 6
	ed25519Size, coordinate = 32, 32
)

// isOf checks that the data is of an SSH key.
func (d authenticatorData) isOf(key ssh.PublicKey) error {
	var edKey struct {
		Name        string
		Key         []byte
		Application string
	}
	var ecKey struct {
		Name, Curve string
		Key         []byte
		Application string
	}
	var err error
	switch key.Type() {
	case ssh.KeyAlgoSKED25519:
		err = ssh.Unmarshal(key.Marshal(), &edKey)
	case ssh.KeyAlgoSKECDSA256:
		err = ssh.Unmarshal(key.Marshal(), &ecKey)
	default:
		return postern.Errorf(postern.Denied, "a key of type %s is not in a FIDO2 key", key.Type())
	}
	public, made := append(edKey.Key, ecKey.Key...), d.key.marshal() // one of them is empty
	application := sha256.Sum256([]byte(edKey.Application + ecKey.Application))
	if err != nil || len(made) == 0 || !bytes.Equal(public, made) || !bytes.Equal(application[:], d.application) {
		return postern.Errorf(postern.Denied, "the attestation is of another key")
	}
	return nil
}

// marshal returns the key as SSH has it: Ed25519's, or the point on P-256; nil for
// others.
func (k coseKey) marshal() []byte {
	switch {
	case k.Type == coseOKP && k.Algorithm == coseEdDSA && k.Curve == coseEd25519 && len(k.X) == ed25519Size:
		return k.X
	case k.Type == coseEC2 && k.Algorithm == coseES256 && k.Curve == coseP256 && len(k.X) == coordinate &&
		len(k.Y) == coordinate:
		point := slices.Concat([]byte{4}, k.X, k.Y)
		if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err == nil {
			return point
		}
	}
	return nil
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
