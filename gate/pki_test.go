package gate_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// signer is a CA of a test, or a certificate's holder.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate: signed by itself if by is nil.
func issue(t testing.TB, by *signer, change func(*x509.Certificate)) *signer {
	t.Helper()
	if by == nil {
		by = new(signer)
	}
	cert, key := posterntest.Issue(t, by.cert, by.key, change)
	return &signer{cert, key}
}

func authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		c.ExtKeyUsage = nil
	}
}

var emailOID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// rdns returns a DN with one attribute in each RDN, in order.
func rdns(t testing.TB, pairs ...string) []byte {
	t.Helper()
	oids := map[string]asn1.ObjectIdentifier{
		"CN": {2, 5, 4, 3}, "OU": {2, 5, 4, 11}, "O": {2, 5, 4, 10},
		"E": emailOID,
	}
	var seq pkix.RDNSequence
	for i := 0; i < len(pairs); i += 2 {
		seq = append(seq, pkix.RelativeDistinguishedNameSET{{Type: oids[pairs[i]], Value: pairs[i+1]}})
	}
	der, err := asn1.Marshal(seq)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
