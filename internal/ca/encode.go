package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/bits"
	"net"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// signLeaf signs an end-entity certificate whose template began with
// leafTemplate.
//
// With a P-256 key in this process, which CAs have unless they were made
// otherwise, it writes a server's or a client's with the same bytes as
// [x509.CreateCertificate], in half the time: it does not verify the signature
// that crypto/ecdsa just made. Any other signer may be an HSM that fails, and
// goes through crypto/x509, as a template with extensions of its own does.
func (i *issuer) signLeaf(tmpl *x509.Certificate, pub crypto.PublicKey, spki []byte) ([]byte, error) {
	key, ok := i.signer.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() || !plainLeaf(tmpl) {
		return x509.CreateCertificate(rand.Reader, tmpl, i.cert, pub, i.signer)
	}
	tbs, err := leafTBS(tmpl, i.cert, spki)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+128))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addECDSAWithSHA256(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// plainLeaf reports whether leafTBS writes everything that the template asks for.
func plainLeaf(tmpl *x509.Certificate) bool {
	return len(tmpl.ExtKeyUsage) == 1 && oidUsages[tmpl.ExtKeyUsage[0]] != nil &&
		len(tmpl.ExtraExtensions)+len(tmpl.Policies) == 0
}

// leafTBS returns the TBSCertificate (RFC 5280 section 4.1) of a template, for a
// key in PKIX form, to be signed with ECDSA and SHA-256.
func leafTBS(tmpl, parent *x509.Certificate, spki []byte) ([]byte, error) {
	subject := tmpl.RawSubject
	if subject == nil {
		var err error
		if subject, err = asn1.Marshal(tmpl.Subject.ToRDNSequence()); err != nil {
			return nil, err
		}
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(context0(0), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // version 3
		b.AddASN1BigInt(tmpl.SerialNumber)
		addECDSAWithSHA256(b)
		b.AddBytes(parent.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, tmpl.NotBefore)
			addTime(b, tmpl.NotAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(context0(3), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addLeafExtensions(b, tmpl, parent, len(subject) == 2)
			})
		})
	})
	return b.Bytes()
}

// The identifiers of RFC 5280 sections 4.2.1 and 4.2.2.
var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCRLPoints        = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidAuthorityInfo    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidOCSP             = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidCAIssuers        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}

	oidUsages = map[x509.ExtKeyUsage]asn1.ObjectIdentifier{
		x509.ExtKeyUsageServerAuth: {1, 3, 6, 1, 5, 5, 7, 3, 1},
		x509.ExtKeyUsageClientAuth: {1, 3, 6, 1, 5, 5, 7, 3, 2},
	}
)

// addLeafExtensions writes the extensions in the order of crypto/x509.
func addLeafExtensions(b *cryptobyte.Builder, tmpl, parent *x509.Certificate, anonymous bool) {
	addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
			usage := bits.Reverse8(uint8(tmpl.KeyUsage))
			b.AddUint8(uint8(bits.TrailingZeros8(usage))) // unused bits
			b.AddUint8(usage)
		})
	})
	addExtension(b, oidExtKeyUsage, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidUsages[tmpl.ExtKeyUsage[0]])
		})
	})
	addExtension(b, oidBasicConstraints, true, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {}) // not a CA
	})
	addExtension(b, oidSubjectKeyID, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(tmpl.SubjectKeyId) })
	addExtension(b, oidAuthorityKeyID, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addImplicit(b, 0, parent.SubjectKeyId) })
	})
	if len(tmpl.OCSPServer)+len(tmpl.IssuingCertificateURL) > 0 {
		addExtension(b, oidAuthorityInfo, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addAccess(b, oidOCSP, tmpl.OCSPServer)
				addAccess(b, oidCAIssuers, tmpl.IssuingCertificateURL)
			})
		})
	}
	if len(tmpl.DNSNames)+len(tmpl.EmailAddresses)+len(tmpl.IPAddresses) > 0 {
		addExtension(b, oidSAN, anonymous, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addNames(b, tmpl) })
		})
	}
	if len(tmpl.CRLDistributionPoints) > 0 {
		addExtension(b, oidCRLPoints, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addPoints(b, tmpl.CRLDistributionPoints) })
		})
	}
}

func addExtension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool,
	value cryptobyte.BuilderContinuation,
) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// The choices of GeneralName (RFC 5280 section 4.2.1.6).
const (
	nameMail = 1
	nameDNS  = 2
	nameURI  = 6
	nameIP   = 7
)

func addNames(b *cryptobyte.Builder, tmpl *x509.Certificate) {
	for _, n := range tmpl.DNSNames {
		addASCII(b, nameDNS, n)
	}
	for _, n := range tmpl.EmailAddresses {
		addASCII(b, nameMail, n)
	}
	for _, ip := range tmpl.IPAddresses {
		addImplicit(b, nameIP, shortest(ip))
	}
}

func shortest(ip net.IP) []byte {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	return ip
}

func addAccess(b *cryptobyte.Builder, method asn1.ObjectIdentifier, urls []string) {
	for _, u := range urls {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(method)
			addASCII(b, nameURI, u)
		})
	}
}

func addPoints(b *cryptobyte.Builder, urls []string) {
	for _, u := range urls {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(context0(0), func(b *cryptobyte.Builder) { // distributionPoint
				b.AddASN1(context0(0), func(b *cryptobyte.Builder) { addASCII(b, nameURI, u) }) // fullName
			})
		})
	}
}

// addASCII writes an IA5String, or fails if s is not one.
func addASCII(b *cryptobyte.Builder, tag cbasn1.Tag, s string) {
	for i := range len(s) {
		if s[i] >= 0x80 {
			b.SetError(postern.Errorf(postern.Invalid, "%q cannot stand in a certificate: it is not ASCII", s))
			return
		}
	}
	addImplicit(b, tag, []byte(s))
}

func addImplicit(b *cryptobyte.Builder, tag cbasn1.Tag, s []byte) {
	b.AddASN1(tag.ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(s) })
}

// addTime writes a Time as RFC 5280 section 4.1.2.5 wants it.
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

func addECDSAWithSHA256(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSASHA256) })
}
