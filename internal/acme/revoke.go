package acme

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// revoke revokes a certificate for the account that it was issued to, for one
// that has proved all its names, or for the holder of its key (RFC 8555 section
// 7.6).
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, m *message) error {
	var req struct {
		Certificate string                   `json:"certificate"`
		Reason      postern.RevocationReason `json:"reason"`
	}
	if err := m.decode(&req); err != nil {
		return err
	}
	der, err := base64.RawURLEncoding.DecodeString(req.Certificate)
	if err != nil {
		return malformed("the certificate is not base64url")
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return malformed("the certificate can't be read")
	}
	serial := leaf.SerialNumber.Text(16)
	c, err := s.ca.Certificate(r.Context(), serial)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil, err == nil && !bytes.Equal(c.DER, der):
		return problem("malformed", http.StatusNotFound, "the certificate was not issued here")
	case err != nil:
		return err
	}
	by := postern.Actor{Address: m.address}
	if m.account == nil {
		if !sameKey(leaf.PublicKey, m.key.Key) {
			return unauthorized("the request is signed by another key than the certificate's")
		}
	} else {
		by.Person = m.account.Person
		ordered, err := s.mayRevoke(r, m, serial, c.Names)
		if err != nil {
			return err
		}
		if !ordered && req.Reason == postern.KeyCompromise {
			return problem("badRevocationReason", http.StatusBadRequest,
				"only the holder of the key, or the account of the certificate, may say that the key is compromised")
		}
	}
	if !req.Reason.Valid() {
		return badRevocationReason(req.Reason)
	}
	err = s.ca.Revoke(r.Context(), by, serial, req.Reason)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
		return nil
	case postern.CodeOf(err) == postern.Conflict:
		return alreadyRevoked()
	}
	return err
}

// mayRevoke fails unless the account ordered the certificate, or has proved all
// its names, and reports which.
func (s *Server) mayRevoke(r *http.Request, m *message, serial string, names []string) (ordered bool, err error) {
	o, err := s.store.OrderBySerial(r.Context(), serial)
	if err == nil && o.Account == m.account.ID {
		return true, nil
	}
	if err != nil && postern.CodeOf(err) != postern.NotFound {
		return false, err
	}
	if len(names) == 0 {
		return false, unauthorized("the certificate was issued to another account, and has no name to prove")
	}
	proved, err := s.store.Proved(r.Context(), m.account.ID, s.cfg.Now())
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if !slices.Contains(proved, n) {
			return false, unauthorized("the certificate was issued to another account, and this one has not proved %s",
				n)
		}
	}
	return false, nil
}

// certID reads a certificate's identifier as RFC 9773 section 4.1 makes it:
// the authority's key identifier and the serial number, base64url.
func certID(s string) (keyID []byte, serial string, ok bool) {
	a, b, dot := strings.Cut(s, ".")
	keyID, err := base64.RawURLEncoding.DecodeString(a)
	if !dot || err != nil || len(keyID) == 0 {
		return nil, "", false
	}
	n, err := base64.RawURLEncoding.DecodeString(b)
	if err != nil || len(n) == 0 || len(n) > 21 {
		return nil, "", false
	}
	return keyID, new(big.Int).SetBytes(n).Text(16), true
}

// renewalInfo says when to renew (RFC 9773): in the last third of the
// certificate's life, or at once if it is revoked.
func (s *Server) renewalInfo(w http.ResponseWriter, r *http.Request) {
	keyID, serial, ok := certID(r.PathValue("id"))
	if !ok {
		s.refuse(w, r, malformed("that is no certificate identifier"))
		return
	}
	c, err := s.ca.Certificate(r.Context(), serial)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil, err == nil && !bytes.Equal(c.AuthorityKeyID, keyID):
		s.refuse(w, r, notFound("certificate"))
		return
	case err != nil:
		s.refuse(w, r, err)
		return
	}
	life := c.NotAfter.Sub(c.NotBefore)
	start, end := c.NotBefore.Add(life*2/3), c.NotBefore.Add(life*5/6)
	if c.Revoked {
		now := s.cfg.Now()
		start, end = now.Add(-2*time.Hour), now.Add(-time.Hour)
	}
	w.Header().Set("Retry-After", "21600")
	writeJSON(w, http.StatusOK, map[string]any{"suggestedWindow": map[string]string{ //nolint:errcheck // never fails
		"start": start.UTC().Format(time.RFC3339), "end": end.UTC().Format(time.RFC3339),
	}})
}

// replaceable checks that an order may say that it replaces a certificate (RFC
// 9773 section 5).
func (s *Server) replaceable(r *http.Request, m *message, id string, names []Identifier) error {
	_, serial, ok := certID(id)
	if !ok {
		return malformed("replaces is no certificate identifier")
	}
	o, err := s.store.OrderBySerial(r.Context(), serial)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil, err == nil && o.Account != m.account.ID:
		return malformed("replaces names a certificate that this account does not have")
	case err != nil:
		return err
	}
	for _, n := range names {
		if slices.Contains(o.Identifiers, n) {
			return nil
		}
	}
	return malformed("the order shares no name with the certificate that it replaces")
}
