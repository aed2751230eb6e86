// Package piv checks that a private key was made in the PIV application of a YubiKey and
// cannot leave it: the attestation that ykman piv keys attest and yubico-piv-tool write.
//
// Use it where a certificate is issued for such a key. What was proved stands then in the
// certificate that is issued, in the same extensions, where
// [Read] finds it.
//
// The source of the format is Yubico's documentation of PIV attestation.
package piv

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// MaxSize bounds an attestation, bytes: its two certificates have about two thousand.
const MaxSize = 16 << 10

// Attestation is what a YubiKey says of a key that it made.
type Attestation struct {
	Public crypto.PublicKey // nil where it was read from an issued certificate
	Slot   string           // of the key, hexadecimal: 9a; "" if not known

	Firmware   string // 5.4.3
	Serial     uint32 // printed on the YubiKey; 0: it does not say
	PIN        string // when it asks for the PIN: never, once (in a session), always, match-once, match-always
	Touch      string // when it asks for a touch: never, always, cached (for 15 seconds)
	FormFactor string // as "USB-C keychain"; "" if it does not say
	FIPS       bool   // it is of the FIPS series

	// Extensions say the same in the certificate that is issued for the key.
	Extensions []pkix.Extension
}

// String describes the YubiKey: YubiKey 5.4.3, serial number 15732740, PIN once, touch always.
func (a Attestation) String() string {
	s := "YubiKey " + a.Firmware
	if a.FIPS {
		s = "YubiKey FIPS " + a.Firmware
	}
	if a.FormFactor != "" {
		s += " (" + a.FormFactor + ")"
	}
	if a.Serial != 0 {
		s += fmt.Sprintf(", serial number %d", a.Serial)
	}
	return s + ", PIN " + a.PIN + ", touch " + a.Touch
}

// Check returns what an attestation proves at the time now. It holds two certificates in
// PEM, in either order: the one that the YubiKey made for the key, and the one of the
// YubiKey itself, from its slot f9. Check fails with [postern.Invalid] for what cannot be
// read, and with [postern.Denied] for what proves nothing.
func Check(attestation []byte, trusted *Makers, now time.Time) (Attestation, error) {
	if len(attestation) > MaxSize {
		return Attestation{}, postern.Errorf(postern.Invalid, "the attestation has %d bytes, more than %d",
			len(attestation), MaxSize)
	}
	certs, err := certificates(attestation)
	if err == nil && len(certs) != 2 {
		err = fmt.Errorf("it must hold two certificates in PEM, and holds %d", len(certs))
	}
	if err != nil {
		return Attestation{}, postern.Errorf(postern.Invalid, "the attestation cannot be read: %w", err).
			WithHint(
				"give both certificates: ykman piv keys attest 9a FILE, and ykman piv certificates export f9 FILE")
	}
	key, device := certs[0], certs[1]
	if bytes.Equal(device.RawIssuer, key.RawSubject) {
		key, device = device, key
	}
	return CheckPair(key, device, trusted, now)
}

// CheckPair is [Check] for an attestation whose certificates are known: of the key, and of
// the YubiKey that made it.
func CheckPair(key, device *x509.Certificate, trusted *Makers, now time.Time) (Attestation, error) {
	if err := trusted.vouch(device, now); err != nil {
		return Attestation{}, err
	}
	if err := attested(key, device, now); err != nil {
		return Attestation{}, err
	}
	a, found, err := Read(key.Extensions)
	if err == nil && !found {
		err = postern.Errorf(postern.Denied, "the certificate is of no key that a YubiKey made")
	}
	if err != nil {
		return Attestation{}, err
	}
	if a.Public = key.PublicKey; a.Public == nil {
		return Attestation{}, postern.Errorf(postern.Denied, "the attested key is of a type that is not known").
			WithHint("make an EC key")
	}
	if slot, ok := strings.CutPrefix(key.Subject.CommonName, "YubiKey PIV Attestation "); ok {
		a.Slot = slot
	}
	return a, a.strong()
}

// attested checks that a YubiKey's own certificate signed that of a key. crypto/x509 does
// not build this path: the certificate of some YubiKeys of 2018 says of no CA that it is one.
func attested(key, device *x509.Certificate, now time.Time) error {
	ca := device.BasicConstraintsValid && device.IsCA ||
		!device.BasicConstraintsValid && device.Subject.CommonName == "Yubico PIV Attestation"
	switch {
	case !ca || !bytes.Equal(key.RawIssuer, device.RawSubject) ||
		device.CheckSignature(key.SignatureAlgorithm, key.RawTBSCertificate, key.Signature) != nil:
		return postern.Errorf(postern.Denied, "the attestation is not signed by this YubiKey").
			WithHint("take both certificates from the same YubiKey")
	case now.Before(key.NotBefore) || now.After(key.NotAfter):
		return postern.Errorf(postern.Denied, "the attestation is not valid now")
	case len(key.UnhandledCriticalExtensions) > 0:
		return postern.Errorf(postern.Denied, "the attestation has a critical extension that is not known: %s",
			key.UnhandledCriticalExtensions[0])
	}
	return nil
}

// strong refuses RSA keys of the firmware that made weak ones (CVE-2017-15361).
func (a Attestation) strong() error {
	if _, ok := a.Public.(*rsa.PublicKey); ok && a.version() >= 0x040200 && a.version() < 0x040305 {
		return postern.Errorf(postern.Denied, "a YubiKey of firmware %s makes RSA keys that can be factored",
			a.Firmware).
			WithHint("make an EC key, or use a newer YubiKey")
	}
	return nil
}

func (a Attestation) version() int {
	var major, minor, patch int
	_, _ = fmt.Sscanf(a.Firmware, "%d.%d.%d", &major, &minor, &patch) // written by Read
	return major<<16 | minor<<8 | patch
}

// certificates reads certificates in PEM.
func certificates(text []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return certs, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds a %s", strings.ToLower(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
}
