package gate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/postern-project/postern"
)

// RevocationLists are other people's CRLs. If a CA has one, its certificates are valid
// only while a list of it is current. It is read-only once made.
type RevocationLists struct {
	byIssuer map[string]*revocationList // by raw subject of the issuer
}

type revocationList struct {
	list    *x509.RevocationList
	revoked map[string]bool // by serial number's bytes
}

// ReadRevocationLists parses CRLs, PEM (several may follow one another) or DER.
func ReadRevocationLists(files ...[]byte) (*RevocationLists, error) {
	lists := &RevocationLists{byIssuer: make(map[string]*revocationList)}
	for _, data := range files {
		if !bytes.Contains(data, []byte("-----BEGIN")) {
			if err := lists.add(data); err != nil {
				return nil, err
			}
			continue
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "X509 CRL" {
				continue
			}
			if err := lists.add(block.Bytes); err != nil {
				return nil, err
			}
		}
	}
	if len(lists.byIssuer) == 0 {
		return nil, postern.Errorf(postern.Invalid, "no certificate revocation list found")
	}
	return lists, nil
}

func (l *RevocationLists) add(der []byte) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return postern.Errorf(postern.Invalid, "cannot read the certificate revocation list: %w", err)
	}
	have, ok := l.byIssuer[string(list.RawIssuer)]
	if ok && have.list.ThisUpdate.After(list.ThisUpdate) {
		return nil
	}
	r := &revocationList{list: list, revoked: make(map[string]bool)}
	for _, e := range list.RevokedCertificateEntries {
		r.revoked[key(e.SerialNumber)] = true
	}
	l.byIssuer[string(list.RawIssuer)] = r
	return nil
}

func key(serial *big.Int) string { return string(serial.Bytes()) }

// check looks up each certificate of the chain but the anchor in its issuer's list, and
// returns when the first of these lists expires, if that is before until. It fails if a
// list has expired or is not signed by the issuer.
func (l *RevocationLists) check(chain []*x509.Certificate, now, until time.Time) (time.Time, Reason) {
	for i, c := range chain[:len(chain)-1] {
		r, ok := l.byIssuer[string(c.RawIssuer)]
		if !ok {
			continue
		}
		if r.list.CheckSignatureFrom(chain[i+1]) != nil ||
			!r.list.NextUpdate.IsZero() && now.After(r.list.NextUpdate) {
			return until, Unavailable
		}
		if r.revoked[key(c.SerialNumber)] {
			return until, Revoked
		}
		if next := r.list.NextUpdate; !next.IsZero() && next.Before(until) {
			until = next
		}
	}
	return until, OK
}
