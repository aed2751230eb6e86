package ca

import (
	"crypto"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"software.sslmate.com/src/go-pkcs12"
)

// EncodePKCS12 packs key, certificate, chain and roots under a password, for
// import into a browser or system: AES-256 and SHA-256, or, for importers that
// know neither (macOS before 15, Windows before 2019, Android before 14),
// triple DES and SHA-1. The key is named after the person, the label and the end.
func EncodePKCS12(key crypto.PrivateKey, out *Issued, password string, legacy bool) ([]byte, error) {
	if password == "" {
		return nil, postern.Errorf(postern.Invalid, "a PKCS#12 file needs a password: browsers refuse an empty one")
	}
	enc := pkcs12.Modern
	if legacy {
		enc = pkcs12.LegacyDES
	}
	data, err := enc.Encode(key, out.Leaf, slices.Concat(out.Chain, out.Roots), password)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "write PKCS#12: %w", err)
	}
	if data, err = nameKey(data, password, out.friendlyName()); err != nil {
		return nil, postern.Errorf(postern.Internal, "write PKCS#12: %w", err)
	}
	return data, nil
}

// friendlyName returns the name under which an importer lists the key: whose it
// is, the label, and the day on which the certificate ends (UTC).
func (i *Issued) friendlyName() string {
	name := i.Person
	if name == "" && len(i.Names) > 0 {
		name = i.Names[0]
	}
	if i.Label != "" {
		name += " " + i.Label
	}
	return strings.TrimSpace(name + " until " + i.Leaf.NotAfter.UTC().Format(time.DateOnly))
}

// Bounds on a PKCS#12 file that another program wrote.
const (
	maxPKCS12 = 1 << 20
	maxRounds = 2_000_000 // of hashing, added up; browsers write at most 600,000
	maxDepth  = 24
)

// ParsePKCS12 reads a file that holds one private key, its certificate and
// perhaps more certificates.
func ParsePKCS12(data []byte, password string) (crypto.Signer, *x509.Certificate, []*x509.Certificate, error) {
	if len(data) > maxPKCS12 {
		return nil, nil, nil, postern.Errorf(postern.Invalid, "the PKCS#12 file is larger than %d KiB", maxPKCS12>>10)
	}
	if rounds(data, 0) > maxRounds {
		return nil, nil, nil, postern.Errorf(postern.Invalid,
			"the PKCS#12 file asks for more than %d rounds of hashing, which would take too long", maxRounds)
	}
	key, cert, chain, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return nil, nil, nil, postern.Errorf(postern.Invalid, "the PKCS#12 file cannot be read: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok || !samePublic(signer.Public(), cert.PublicKey) {
		return nil, nil, nil, postern.Errorf(postern.Invalid, "the key in the PKCS#12 file is not the certificate's")
	}
	return signer, cert, chain, nil
}

// rounds adds up the iteration counts in the unencrypted part of a PKCS#12 file: each
// is an INTEGER after a salt. The parameters of PBES1 (RFC 7292 appendix C), PBKDF2
// (RFC 8018 appendix A.2) and MacData (RFC 7292 section 4) all have that form. It
// stops beyond maxRounds.
func rounds(der cryptobyte.String, depth int) (total int) {
	salted := false
	for !der.Empty() && total <= maxRounds {
		var body cryptobyte.String
		var tag cbasn1.Tag
		if depth > maxDepth || !der.ReadAnyASN1(&body, &tag) {
			break // not DER: the parser proper says so
		}
		switch {
		case tag == cbasn1.INTEGER && salted:
			total += capped(body)
		case tag == cbasn1.OCTET_STRING || tag&0x20 != 0:
			total += rounds(body, depth+1)
		}
		salted = tag == cbasn1.OCTET_STRING
	}
	return total
}

// capped returns an INTEGER's value, or a little more than maxRounds if it is
// larger or negative.
func capped(body cryptobyte.String) int {
	n := 0
	for i, b := range body {
		if n = n<<8 | int(b); n > maxRounds || i == 0 && b&0x80 != 0 {
			return maxRounds + 1
		}
	}
	return n
}
