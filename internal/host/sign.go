package host

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"

	"github.com/postern-project/postern"
)

// A host accepts an answer because a CA of its installation signed it, with the request
// that it answers, and not because of the server's own certificate: an attacker with one
// that hosts trust in public could answer in the server's place.

// signedAnswer is an answer as it is sent.
type signedAnswer struct {
	Answer    json.RawMessage `json:"answer"`
	Signature []byte          `json:"signature"` // of what statement returns
	Signer    string          `json:"signer"`    // PEM, with its chain
}

// statement is what is signed. It begins with a letter, as nothing does that a CA signs
// otherwise: certificates, lists and OCSP answers begin with the tag of a DER sequence.
func statement(request, answer []byte) []byte {
	sum := sha256.Sum256(request)
	return append(append([]byte("postern host answer\x00"), sum[:]...), answer...)
}

// OpenAnswer returns the answer to a request, both as they were sent: Denied unless it was
// signed for that request, by a delegate of a CA under one of the roots.
func OpenAnswer(body, request []byte, roots *x509.CertPool) (Answer, error) {
	var s signedAnswer
	var a Answer
	if err := json.Unmarshal(body, &s); err != nil {
		return a, errNotSigned("it is no signed answer")
	}
	signer, err := verifySigner([]byte(s.Signer), roots)
	if err != nil {
		return a, err
	}
	if signer.CheckSignature(x509.ECDSAWithSHA256, statement(request, s.Answer), s.Signature) != nil {
		return a, errNotSigned("the signature is not valid for this request")
	}
	if err := json.Unmarshal(s.Answer, &a); err != nil {
		return a, errNotSigned("it cannot be read")
	}
	return a, nil
}

// verifySigner returns the certificate of a delegate of a CA under one of the roots. Such
// delegates sign OCSP answers, too: no one but a CA has a certificate for that.
func verifySigner(chain []byte, roots *x509.CertPool) (*x509.Certificate, error) {
	// A CA that is for clients alone delegates, too (RFC 6960 section 4.2.2.2).
	o := x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	var leaf *x509.Certificate
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return nil, errNotSigned("the signer's certificate cannot be read")
		case leaf == nil:
			leaf = c
		default:
			o.Intermediates.AddCert(c)
		}
	}
	if leaf == nil || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return nil, errNotSigned("no delegate of a CA signed it")
	}
	if _, err := leaf.Verify(o); err != nil {
		return nil, errNotSigned("the signer's certificate does not verify: " + err.Error())
	}
	return leaf, nil
}

func errNotSigned(why string) error {
	return postern.Errorf(postern.Denied, "the answer was not signed by the installation: %s", why).
		WithHint("see whether the address is right and nothing answers in the server's place")
}
