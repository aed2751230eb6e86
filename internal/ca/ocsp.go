package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidOCSPBasic   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidOCSPNonce   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidSHA1        = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256      = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

// Bounds on a request. RFC 9654 has nonces of 1 to 128 bytes; a request with a
// longer one is answered "malformedRequest".
const (
	maxOCSPRequest = 16 << 10
	maxOCSPCerts   = 16
	maxOCSPNonce   = 128
)

// certID names a certificate in OCSP (RFC 6960 section 4.1.1).
type certID struct {
	raw      cryptobyte.String // as sent: the answer repeats it
	hash     asn1.ObjectIdentifier
	nameHash []byte
	keyHash  []byte
	serial   *big.Int
}

type ocspRequest struct {
	certs []certID
	nonce []byte // nil: none was sent
}

// parseOCSP reads an OCSPRequest (RFC 6960 section 4.1.1). A signature on it is
// passed over, as the RFC allows.
func parseOCSP(der []byte) (*ocspRequest, bool) {
	in := cryptobyte.String(der)
	var outer, tbs, list cryptobyte.String
	if len(der) > maxOCSPRequest || !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !in.Empty() ||
		!outer.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, false
	}
	version, requestor := cbasn1.Tag(0).ContextSpecific().Constructed(), cbasn1.Tag(1).ContextSpecific().Constructed()
	if !tbs.SkipOptionalASN1(version) || !tbs.SkipOptionalASN1(requestor) || !tbs.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil, false
	}
	r := &ocspRequest{}
	for !list.Empty() {
		var one cryptobyte.String
		if len(r.certs) == maxOCSPCerts || !list.ReadASN1(&one, cbasn1.SEQUENCE) {
			return nil, false
		}
		id, ok := parseCertID(&one)
		if !ok {
			return nil, false
		}
		r.certs = append(r.certs, id)
	}
	var exts cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&exts, &present, cbasn1.Tag(2).ContextSpecific().Constructed()) || !tbs.Empty() {
		return nil, false
	}
	if present && !r.parseExtensions(exts) {
		return nil, false
	}
	return r, len(r.certs) > 0
}

func parseCertID(in *cryptobyte.String) (id certID, ok bool) {
	var body, alg cryptobyte.String
	if !in.ReadASN1Element(&id.raw, cbasn1.SEQUENCE) {
		return id, false
	}
	raw := id.raw
	id.serial = new(big.Int)
	ok = raw.ReadASN1(&body, cbasn1.SEQUENCE) &&
		body.ReadASN1(&alg, cbasn1.SEQUENCE) && alg.ReadASN1ObjectIdentifier(&id.hash) &&
		body.ReadASN1Bytes(&id.nameHash, cbasn1.OCTET_STRING) &&
		body.ReadASN1Bytes(&id.keyHash, cbasn1.OCTET_STRING) &&
		body.ReadASN1Integer(id.serial) && body.Empty()
	return id, ok
}

func (r *ocspRequest) parseExtensions(exts cryptobyte.String) bool {
	var list cryptobyte.String
	if !exts.ReadASN1(&list, cbasn1.SEQUENCE) || !exts.Empty() {
		return false
	}
	for !list.Empty() {
		var ext cryptobyte.String
		var oid asn1.ObjectIdentifier
		var critical bool
		var value []byte
		if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&oid) {
			return false
		}
		if ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) {
			return false
		}
		if !ext.ReadASN1Bytes(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
			return false
		}
		if !oid.Equal(oidOCSPNonce) {
			if critical {
				return false
			}
			continue
		}
		inner := cryptobyte.String(value)
		if !inner.ReadASN1Bytes(&r.nonce, cbasn1.OCTET_STRING) || !inner.Empty() || len(r.nonce) == 0 ||
			len(r.nonce) > maxOCSPNonce {
			return false
		}
	}
	return true
}

// OCSPAnswer is an OCSP response, and how long it may be relied on.
type OCSPAnswer struct {
	DER        []byte
	ThisUpdate time.Time
	NextUpdate time.Time // zero: the answer is an error, or bound to a nonce
}

// The errors of RFC 6960 section 4.2.1: an OCSPResponse with a status alone.
var (
	ocspMalformed    = []byte{0x30, 3, 0x0a, 1, 1}
	ocspInternal     = []byte{0x30, 3, 0x0a, 1, 2}
	ocspUnauthorized = []byte{0x30, 3, 0x0a, 1, 6}
)

// OCSP answers a request (DER), from the store as it stands. It always returns
// an answer to send; the error is set if something of ours broke.
//
// An unknown serial number under a CA of ours is answered "revoked" with the
// extended-revoke meaning of RFC 6960 section 2.2: it was never issued. A request
// about another's certificate is answered "unauthorized".
func (a *Authority) OCSP(ctx context.Context, der []byte) (OCSPAnswer, error) {
	req, ok := parseOCSP(der)
	if !ok {
		return OCSPAnswer{DER: ocspMalformed}, nil
	}
	iss := a.ocspIssuer(req.certs[0])
	if iss == nil {
		return OCSPAnswer{DER: ocspUnauthorized}, nil
	}
	for _, id := range req.certs[1:] {
		if other := a.ocspIssuer(id); other == nil || other.ID != iss.ID {
			return OCSPAnswer{DER: ocspUnauthorized}, nil // one signer per answer
		}
	}
	signer, err := a.signers.of(ctx, a, iss)
	if err != nil {
		return OCSPAnswer{DER: ocspInternal}, err
	}
	answer, err := a.signOCSP(ctx, req, iss, signer)
	if err != nil {
		return OCSPAnswer{DER: ocspInternal}, err
	}
	return answer, nil
}

// ocspIssuer returns the CA that the request names and whose key is here.
func (a *Authority) ocspIssuer(id certID) *issuer {
	var hash crypto.Hash
	switch {
	case id.hash.Equal(oidSHA1):
		hash = crypto.SHA1
	case id.hash.Equal(oidSHA256):
		hash = crypto.SHA256
	default:
		return nil
	}
	for _, i := range a.list() {
		if i.cert == nil || i.signer == nil {
			continue
		}
		bits, err := subjectPublicKey(i.PublicKey)
		if err == nil && bytes.Equal(digest(hash, i.cert.RawSubject), id.nameHash) && bytes.Equal(digest(hash, bits),
			id.keyHash) {
			return i
		}
	}
	return nil
}

func digest(h crypto.Hash, data []byte) []byte {
	w := h.New()
	w.Write(data)
	return w.Sum(nil)
}

// ocspSigner is a short-lived delegate (RFC 6960 section 4.2.2.2). Its key
// exists in this process alone.
type ocspSigner struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	chain []byte // PEM, with the CA's
	id    []byte // SHA-1 of its key: the responder's ID

	tried time.Time // when the CA's key was asked for the next one
}

type ocspSigners struct {
	mu   sync.Mutex
	list map[string]*ocspSigner
}

// ocspSignerValidity is how long a delegate lives; it is replaced when half of
// that has passed. Clients do not check whether it was revoked
// (id-pkix-ocsp-nocheck, RFC 6960 section 4.2.2.2.1).
const ocspSignerValidity = 7 * day

func (s *ocspSigners) of(ctx context.Context, a *Authority, iss *issuer) (*ocspSigner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, have := a.now(), s.list[iss.ID]
	valid := have != nil && !now.Before(have.cert.NotBefore) && now.Before(have.cert.NotAfter)
	if valid && (now.Add(ocspSignerValidity/2).Before(have.cert.NotAfter) || now.Before(have.tried.Add(keyPause))) {
		return have, nil
	}
	made, err := a.newOCSPSigner(ctx, iss)
	if valid && postern.CodeOf(err) == postern.Unavailable {
		have.tried = now
		return have, nil
	}
	if err != nil {
		return nil, err
	}
	if s.list == nil {
		s.list = map[string]*ocspSigner{}
	}
	s.list[iss.ID] = made
	return made, nil
}

func (a *Authority) newOCSPSigner(ctx context.Context, iss *issuer) (*ocspSigner, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "make a key: %w", err)
	}
	to := a.now().Add(ocspSignerValidity)
	if to.After(iss.cert.NotAfter) {
		to = iss.cert.NotAfter
	}
	tmpl := a.leafTemplate(iss, a.now().Add(-a.cfg.Backdate), to, x509.ExtKeyUsageOCSPSigning)
	tmpl.Subject = pkix.Name{Organization: []string{a.cfg.Name}, CommonName: iss.cert.Subject.CommonName + " OCSP"}
	tmpl.OCSPServer, tmpl.CRLDistributionPoints = nil, nil
	tmpl.ExtraExtensions = []pkix.Extension{{Id: oidOCSPNoCheck, Value: asn1.NullBytes}}
	out, err := a.sign(iss, tmpl, key.Public(), Certificate{Profile: ProfileOCSP}, postern.Actor{})
	if out, err = a.record(ctx, out, err); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "OCSP key: %w", err)
	}
	bits, err := subjectPublicKey(der)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(bits)
	return &ocspSigner{key: key, cert: out.Leaf, chain: out.PEM(), id: sum[:]}, nil
}

// SignByDelegate signs a message by ECDSA with SHA-256, with the key of the delegate that
// signs OCSP answers for the CA of client certificates, and returns the delegate's chain
// (PEM). The message must not be one of ASN.1. It fails with Unavailable if there is no
// delegate and the CA's key is not here.
func (a *Authority) SignByDelegate(ctx context.Context, message []byte) (signature, chain []byte, err error) {
	iss, err := a.signing(Client)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.signers.of(ctx, a, iss)
	if err != nil {
		return nil, nil, err
	}
	signature, err = s.key.Sign(rand.Reader, digest(crypto.SHA256, message), crypto.SHA256)
	return signature, s.chain, err
}

// signOCSP builds and signs a BasicOCSPResponse (RFC 6960 section 4.2.1).
func (a *Authority) signOCSP(ctx context.Context, req *ocspRequest, iss *issuer, signer *ocspSigner) (OCSPAnswer,
	error,
) {
	now := a.now()
	answer := OCSPAnswer{ThisUpdate: now.Add(-a.cfg.Backdate), NextUpdate: now.Add(a.cfg.OCSPValidity)}
	singles := make([]single, 0, len(req.certs))
	for _, id := range req.certs {
		s := single{id: id}
		c, err := a.store.Certificate(ctx, SerialString(id.serial))
		switch {
		case postern.CodeOf(err) == postern.NotFound, err == nil && c.Issuer != iss.ID:
			s.revoked, s.reason = time.Unix(0, 0), 6 // certificateHold at the epoch: never issued
			s.never = true
		case err != nil:
			return OCSPAnswer{}, err
		default:
			s.revoked, s.reason = c.Revoked, c.Reason
		}
		singles = append(singles, s)
	}
	data, err := responseData(singles, answer, signer.id, req.nonce)
	if err != nil {
		return OCSPAnswer{}, postern.Errorf(postern.Internal, "build an OCSP answer: %w", err)
	}
	sig, err := signer.key.Sign(rand.Reader, digest(crypto.SHA256, data), crypto.SHA256)
	if err != nil {
		return OCSPAnswer{}, postern.Errorf(postern.Internal, "sign an OCSP answer: %w", err)
	}
	if answer.DER, err = ocspResponse(data, sig, signer.cert.Raw, iss.cert.Raw); err != nil {
		return OCSPAnswer{}, postern.Errorf(postern.Internal, "build an OCSP answer: %w", err)
	}
	if req.nonce != nil {
		answer.NextUpdate = time.Time{}
	}
	return answer, nil
}

// single is the answer about one certificate.
type single struct {
	id      certID
	revoked time.Time // zero: good
	reason  postern.RevocationReason
	never   bool // never issued
}

func context0(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

func responseData(list []single, answer OCSPAnswer, responder, nonce []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(context0(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(responder) })
		b.AddASN1GeneralizedTime(answer.ThisUpdate)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range list {
				addSingle(b, s, answer)
			}
		})
		extendedRevoke := false
		for _, s := range list {
			extendedRevoke = extendedRevoke || s.never
		}
		if nonce == nil && !extendedRevoke {
			return
		}
		b.AddASN1(context0(1), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				if nonce != nil {
					addExtension(b, oidOCSPNonce, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
				}
				if extendedRevoke {
					addExtension(b, oidExtendedRevoke, false, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
				}
			})
		})
	})
	return b.Bytes()
}

// oidExtendedRevoke announces that "revoked" can mean "never issued" (RFC 6960
// section 4.4.8).
var oidExtendedRevoke = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 9}

func addSingle(b *cryptobyte.Builder, s single, answer OCSPAnswer) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(s.id.raw)
		if s.revoked.IsZero() {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
		} else {
			b.AddASN1(context0(1), func(b *cryptobyte.Builder) {
				b.AddASN1GeneralizedTime(s.revoked.UTC())
				if s.reason != postern.Unspecified {
					b.AddASN1(context0(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.reason)) })
				}
			})
		}
		b.AddASN1GeneralizedTime(answer.ThisUpdate)
		b.AddASN1(context0(0), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(answer.NextUpdate) })
	})
}

// ocspResponse wraps the signed data. The issuer goes along with the signer for
// clients that trust the root alone, as Apache does.
func ocspResponse(data, sig []byte, certs ...[]byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(context0(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidOCSPBasic)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(data)
						addECDSAWithSHA256(b)
						b.AddASN1BitString(sig)
						b.AddASN1(context0(0), func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddBytes(bytes.Join(certs, nil))
							})
						})
					})
				})
			})
		})
	})
	return b.Bytes()
}
