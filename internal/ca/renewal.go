package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/piv"
)

// RenewRequest asks for a successor of a certificate.
type RenewRequest struct {
	Key     crypto.PublicKey // nil: make a key
	SameKey bool             // certify the old key again
	Profile Profile          // of a server's; "": ProfileServer
	Period
	By postern.Actor
}

// Renew issues a certificate for the names, or the person, of an older one. An
// expired certificate can be renewed. A revoked one cannot, unless it was revoked
// with its CA alone: then for a new key, whatever was wrong with the CA. The old
// one stays valid until it expires or is revoked. A client certificate carries
// the person's present e-mail address. It is in the store when this returns.
func (a *Authority) Renew(ctx context.Context, serial string, r RenewRequest) (*Issued, error) {
	i, err := a.PrepareRenewal(ctx, serial, r)
	return a.record(ctx, i, err)
}

// PrepareRenewal is Renew for a caller that records the certificate with what
// belongs to it: see [Issued].
func (a *Authority) PrepareRenewal(ctx context.Context, serial string, r RenewRequest) (*Issued, error) {
	old, err := a.store.Certificate(ctx, serial)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(old.DER)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "certificate %s: %w", serial, err)
	}
	if r.SameKey {
		r.Key = cert.PublicKey
	}
	if !old.Revoked.IsZero() {
		if err := a.renewsRevoked(ctx, old, r.Key != nil && samePublic(r.Key, cert.PublicKey)); err != nil {
			return nil, err
		}
	}
	switch old.Profile {
	case ProfileServer:
		by := r.By
		if by.Person == "" {
			by.Person = old.Person
		}
		return a.prepareServer(ServerRequest{
			Names: old.Names, Profile: cmp.Or(r.Profile, old.Policy), Key: r.Key, Period: r.Period,
			By: by, renews: serial,
		})
	case ProfileClient:
		if r.Profile != "" && r.Profile != ProfileClient {
			return nil, postern.Errorf(postern.Invalid, "the profile %s is for servers, and certificate %s is %s's",
				r.Profile, serial, old.Person)
		}
		qualifier := qualifierOf(cert.Subject)
		return a.prepareClient(ctx, ClientRequest{
			Person: old.Person, Label: old.Label, Units: cert.Subject.OrganizationalUnit,
			Key: r.Key, Period: r.Period, By: r.By, renews: serial, keep: &qualifier,
			attested: attestedSame(cert, r.Key),
		})
	}
	return nil, postern.Errorf(postern.Invalid, "a certificate of profile %s is not renewed", old.Profile)
}

// attestedSame returns the extensions that say that a certificate's key was attested, for
// a certificate of the same key.
func attestedSame(cert *x509.Certificate, key crypto.PublicKey) []pkix.Extension {
	if a, _, err := piv.Read(cert.Extensions); err == nil && key != nil && samePublic(key, cert.PublicKey) {
		return a.Extensions
	}
	return nil
}

// renewsRevoked fails unless a revoked certificate was revoked together with its
// CA and is renewed for another key: a compromise of the old key since then would
// not have been recorded.
func (a *Authority) renewsRevoked(ctx context.Context, old Certificate, sameKey bool) error {
	iss, err := a.issuer(ctx, old.Issuer)
	switch {
	case err != nil:
		return err
	case !old.Revoked.Equal(iss.Revoked):
		return postern.Errorf(postern.Denied, "certificate %s is revoked", old.Serial).WithHint("issue a new one")
	case sameKey:
		return postern.Errorf(postern.Denied, "certificate %s is revoked, with the %s CA", old.Serial,
			iss.ID).WithHint("renew it for a new key")
	}
	return nil
}
