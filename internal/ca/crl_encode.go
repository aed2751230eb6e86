package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"math/bits"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Revocation lists are written here with the same bytes as by [x509.CreateRevocationList],
// which takes a second for 100,000 entries: it encodes each anew, by reflection.

// The identifiers of RFC 5280 sections 5.2.3 and 5.3.1, RFC 5758 section 3.2 and RFC 4055
// section 5.
var (
	oidCRLNumber   = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReasonCode  = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidECDSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
	oidRSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
)

// encodeRevocations returns entries of revokedCertificates (RFC 5280 section 5.1). None is
// later than the list, which is backdated for clocks that are behind.
func encodeRevocations(list []Revocation, this time.Time) ([]byte, error) {
	var b cryptobyte.Builder
	for _, r := range list {
		serial, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return nil, postern.Errorf(postern.Internal, "serial %q is not a number", r.Serial)
		}
		if r.Time.After(this) {
			r.Time = this
		}
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(serial)
			addTime(b, r.Time)
			if r.Reason == postern.Unspecified {
				return
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addExtension(b, oidReasonCode, false, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(r.Reason)) })
			})
		})
	}
	return b.Bytes()
}

// signList signs a list with these entries.
func (i *issuer) signList(crl CRL, entries ...[]byte) ([]byte, error) {
	alg, err := algorithmFor(i.cert.PublicKey)
	if err != nil {
		return nil, err
	}
	before, behind, err := listFields(crl, i.cert, alg)
	if err != nil {
		return nil, err
	}
	revoked := slices.Concat(entries...)
	if len(revoked) > 0 {
		before = appendSequence(before, len(revoked))
	}
	const room = 16 // for what the whole begins with
	length := len(before) + len(revoked) + len(behind)
	list := appendSequence(make([]byte, room, room+length+1024), length)
	list = append(append(append(list, before...), revoked...), behind...)
	digest := alg.digest(list[room:])
	signature, err := i.signer.Sign(rand.Reader, digest, alg.hash)
	if err != nil {
		return nil, err
	}
	if !verifies(i.cert.PublicKey, alg, digest, signature) { // an HSM may fail
		return nil, postern.Errorf(postern.Internal, "the key made a wrong signature")
	}
	var b cryptobyte.Builder
	alg.add(&b)
	b.AddASN1BitString(signature)
	list = append(list, b.BytesOrPanic()...)
	first := appendSequence(nil, len(list)-room)
	copy(list[room-len(first):], first)
	return list[room-len(first):], nil
}

// appendSequence appends what a SEQUENCE of so many bytes begins with.
func appendSequence(b []byte, length int) []byte {
	b = append(b, byte(cbasn1.SEQUENCE))
	if length < 0x80 {
		return append(b, byte(length))
	}
	n := (bits.Len(uint(length)) + 7) / 8
	b = append(b, 0x80|byte(n))
	for i := n - 1; i >= 0; i-- {
		b = append(b, byte(length>>(8*i)))
	}
	return b
}

// listFields returns what a TBSCertList (RFC 5280 section 5.1) has before and behind the
// entries.
func listFields(crl CRL, issuer *x509.Certificate, alg listAlgorithm) (before, behind []byte, err error) {
	var b cryptobyte.Builder
	b.AddASN1Int64(1) // version 2
	alg.add(&b)
	b.AddBytes(issuer.RawSubject)
	addTime(&b, crl.ThisUpdate)
	addTime(&b, crl.NextUpdate)
	if before, err = b.Bytes(); err != nil {
		return nil, nil, err
	}
	b = cryptobyte.Builder{}
	b.AddASN1(context0(0), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, oidAuthorityKeyID, false, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addImplicit(b, 0, issuer.SubjectKeyId) })
			})
			addExtension(b, oidCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1Int64(crl.Number) })
		})
	})
	behind, err = b.Bytes()
	return before, behind, err
}

// listed returns the entries of a list, if this issuer signed it.
func (i *issuer) listed(der []byte) (entries []byte, ok bool) {
	alg, err := algorithmFor(i.cert.PublicKey)
	if err != nil {
		return nil, false
	}
	whole := cryptobyte.String(der)
	var list, tbs, skip cryptobyte.String
	var signature []byte
	if !whole.ReadASN1(&list, cbasn1.SEQUENCE) || !list.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!list.SkipASN1(cbasn1.SEQUENCE) || !list.ReadASN1BitStringAsBytes(&signature) ||
		!verifies(i.cert.PublicKey, alg, alg.digest(tbs), signature) {
		return nil, false
	}
	ok = tbs.ReadASN1(&tbs, cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.INTEGER) && // version
		tbs.SkipASN1(cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) // algorithm, issuer
	for range 2 { // thisUpdate, nextUpdate
		var tag cbasn1.Tag
		ok = ok && tbs.ReadAnyASN1(&skip, &tag) && (tag == cbasn1.UTCTime || tag == cbasn1.GeneralizedTime)
	}
	var there bool
	ok = ok && tbs.ReadOptionalASN1((*cryptobyte.String)(&entries), &there, cbasn1.SEQUENCE)
	return entries, ok
}

// listAlgorithm is how a key signs lists: as crypto/x509 has it sign.
type listAlgorithm struct {
	hash crypto.Hash
	id   asn1.ObjectIdentifier
	null bool // with parameters, which are NULL
}

func algorithmFor(pub crypto.PublicKey) (listAlgorithm, error) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return listAlgorithm{crypto.SHA256, oidRSASHA256, true}, nil
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return listAlgorithm{crypto.SHA256, oidECDSASHA256, false}, nil
		case elliptic.P384():
			return listAlgorithm{crypto.SHA384, oidECDSASHA384, false}, nil
		case elliptic.P521():
			return listAlgorithm{crypto.SHA512, oidECDSASHA512, false}, nil
		}
	}
	return listAlgorithm{}, postern.Errorf(postern.Internal, "a key of type %T signs no revocation lists", pub)
}

// add writes the AlgorithmIdentifier.
func (a listAlgorithm) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.id)
		if a.null {
			b.AddASN1NULL()
		}
	})
}

func (a listAlgorithm) digest(b []byte) []byte {
	h := a.hash.New()
	h.Write(b)
	return h.Sum(nil)
}

// verifies reports whether a key made a signature.
func verifies(pub crypto.PublicKey, a listAlgorithm, digest, signature []byte) bool {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, a.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, signature)
	}
	return false
}
