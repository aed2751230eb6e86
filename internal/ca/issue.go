package ca

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/piv"
)

// Issued is a certificate, with what is needed to use it. One that
// [Authority.PrepareCSR] or [Authority.PrepareRenewal] returned is not recorded
// yet: it must not be given out before Store.AddCertificate, or a write that does
// the same, has recorded Certificate and Event for By.
type Issued struct {
	Certificate
	By    postern.Actor // for whom it was signed
	Event postern.Event // that goes with it
	Leaf  *x509.Certificate
	Chain []*x509.Certificate // the intermediate, and its root's key certified by other roots
	Roots []*x509.Certificate // that others are to trust, newest first
	Key   crypto.Signer       // nil unless it was made with the certificate; the authority keeps no copy
}

// PEM returns the certificate followed by its chain, as servers want it.
func (i *Issued) PEM() []byte {
	return EncodeCertificates(append([]*x509.Certificate{i.Leaf}, i.Chain...)...)
}

// Attested describes the YubiKey that attested the key, "" if none did.
func (i *Issued) Attested() string {
	if a, found, err := piv.Read(i.Leaf.Extensions); err == nil && found {
		return a.String()
	}
	return ""
}

// ServerRequest asks for a server certificate.
type ServerRequest struct {
	Names   []string         // DNS names, wildcards and addresses; the first becomes the CN
	Profile Profile          // "": ProfileServer
	Key     crypto.PublicKey // nil: make a key
	Period
	By     postern.Actor // whose Person is recorded as the one who asked
	renews string
}

// ClientRequest asks for a client certificate: CN the person's name, e-mail in
// the subject and as alternative name, O the organisation. With a label, the subject has a
// dnQualifier made of it, so that a person's certificates have different subjects: NSS
// (Firefox, Chromium) lists all of one subject under one name.
type ClientRequest struct {
	Person string           // Person.Name
	Label  string           // the person's own words: "phone"
	Units  []string         // OU values
	Key    crypto.PublicKey // nil: the attested one, or make a key
	// Attestation proves that the key was made in a YubiKey, as [piv.Check] takes it; it may be empty.
	Attestation []byte
	Period
	By     postern.Actor
	renews string
	keep   *string // the dnQualifier of the certificate that is renewed, "" for none
	// attested are the extensions of the certificate that is renewed for the same key.
	attested []pkix.Extension
}

// IssueServer issues a server certificate. It is in the store when this returns.
func (a *Authority) IssueServer(ctx context.Context, r ServerRequest) (*Issued, error) {
	i, err := a.prepareServer(r)
	return a.record(ctx, i, err)
}

// record records a certificate that was signed, alone.
func (a *Authority) record(ctx context.Context, i *Issued, err error) (*Issued, error) {
	if err == nil {
		err = a.store.AddCertificate(ctx, i.By, i.Certificate, i.Event)
	}
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (a *Authority) prepareServer(r ServerRequest) (*Issued, error) {
	iss, err := a.signing(Server)
	if err != nil {
		return nil, err
	}
	n, clean, err := cleanNames(r.Names)
	if err != nil {
		return nil, err
	}
	if err := permits(a.Root(), n, nil); err != nil {
		return nil, err
	}
	policy, err := a.serverPolicy(r.Profile)
	if err != nil {
		return nil, err
	}
	tmpl, err := a.policyTemplate(iss, policy, r.Period, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	tmpl.DNSNames, tmpl.IPAddresses = n.dns, n.ips
	// A CN repeats the first name that fits into its 64 characters.
	for _, name := range clean {
		if len(name) <= 64 {
			tmpl.Subject.CommonName = name
			break
		}
	}
	c := Certificate{Profile: ProfileServer, Person: r.By.Person, Names: clean, Renews: r.renews}
	if policy.Profile != ProfileServer {
		c.Policy = policy.Profile
	}
	return a.signUnder(iss, policy, tmpl, r.Key, c, r.By)
}

// IssueClient issues a client certificate, which becomes the person's
// credential. It fails with Denied for a person who is not active. It is in the
// store when this returns.
func (a *Authority) IssueClient(ctx context.Context, r ClientRequest) (*Issued, error) {
	i, err := a.prepareClient(ctx, r)
	return a.record(ctx, i, err)
}

func (a *Authority) prepareClient(ctx context.Context, r ClientRequest) (*Issued, error) {
	iss, err := a.signing(Client)
	if err != nil {
		return nil, err
	}
	p, err := a.store.Person(ctx, r.Person)
	if err != nil {
		return nil, err
	}
	if !p.Active() {
		return nil, postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	policy, err := a.policy(ProfileClient)
	if err != nil {
		return nil, err
	}
	tmpl, err := a.policyTemplate(iss, policy, r.Period, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	var list []string
	if p.Email != "" {
		if err := permits(a.Root(), names{}, []string{p.Email}); err != nil {
			return nil, err
		}
		tmpl.EmailAddresses = []string{p.Email}
		list = append(list, p.Email)
	}
	if tmpl.ExtraExtensions, err = a.attestation(&r); err != nil {
		return nil, err
	}
	if tmpl.RawSubject, err = a.clientSubject(p, r.Units, r.qualifier()); err != nil {
		return nil, err
	}
	c := Certificate{Profile: ProfileClient, Person: p.Name, Label: r.Label, Names: list, Renews: r.renews}
	return a.signUnder(iss, policy, tmpl, r.Key, c, r.By)
}

// attestation returns the extensions of a certificate whose key a YubiKey attests, which
// becomes the request's if it has none. A renewal for the same key keeps them.
func (a *Authority) attestation(r *ClientRequest) ([]pkix.Extension, error) {
	if len(r.Attestation) == 0 {
		return r.attested, nil
	}
	makers, err := piv.Trusted(a.cfg.Makers)
	if err != nil {
		return nil, err
	}
	attested, err := piv.Check(r.Attestation, makers, a.now())
	switch {
	case err != nil:
		return nil, err
	case r.Key == nil:
		r.Key = attested.Public
	case !samePublic(r.Key, attested.Public):
		return nil, postern.Errorf(postern.Denied, "the attestation is of another key than the certificate request").
			WithHint("take both from the same slot of the YubiKey")
	}
	return attested.Extensions, nil
}

var (
	oidOrganization = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidUnit         = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidQualifier    = asn1.ObjectIdentifier{2, 5, 4, 46}                // PrintableString, X.520 section 6.2.9
	oidEmail        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1} // IA5String, RFC 2985 section 5.2.1
)

// qualifier returns the subject's dnQualifier, "" for none: a hash, since labels are
// people's own words. A renewal keeps the subject, which other servers' rules may name.
func (r ClientRequest) qualifier() string {
	switch {
	case r.keep != nil:
		return *r.keep
	case r.Label == "":
		return ""
	}
	sum := sha256.Sum256([]byte(r.Label))
	return hex.EncodeToString(sum[:4])
}

// qualifierOf returns the dnQualifier of a subject, "" for none.
func qualifierOf(subject pkix.Name) string {
	for _, v := range subject.Names {
		if s, ok := v.Value.(string); ok && v.Type.Equal(oidQualifier) {
			return s
		}
	}
	return ""
}

// clientSubject returns O, OU…, CN, emailAddress, dnQualifier, one attribute each.
//
// Under a constrained root OpenSSL applies the DNS constraints to a CN that looks
// like a host name. A person's name with a dot does, so the CN is the e-mail
// address then.
func (a *Authority) clientSubject(p postern.Person, units []string, qualifier string) ([]byte, error) {
	cn := p.Name
	if a.Root().PermittedDNSDomainsCritical && strings.Contains(cn, ".") && p.Email != "" && len(p.Email) <= 64 {
		cn = p.Email
	}
	var dn pkix.RDNSequence
	add := func(oid asn1.ObjectIdentifier, value any) {
		dn = append(dn, pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}})
	}
	add(oidOrganization, a.cfg.Name)
	for _, u := range units {
		if u == "" || len(u) > 64 {
			return nil, postern.Errorf(postern.Invalid, "unit %q is not between 1 and 64 bytes", u)
		}
		add(oidUnit, u)
	}
	add(oidCommonName, cn)
	if p.Email != "" {
		add(oidEmail, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(p.Email)})
	}
	if qualifier != "" {
		add(oidQualifier, qualifier)
	}
	der, err := asn1.Marshal(dn)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "the subject cannot be written: %w", err)
	}
	return der, nil
}

// leafTemplate returns what all end-entity certificates of an issuer share.
func (a *Authority) leafTemplate(iss *issuer, from, to time.Time, usage x509.ExtKeyUsage) *x509.Certificate {
	tmpl := &x509.Certificate{
		SerialNumber:          newSerial(),
		NotBefore:             from,
		NotAfter:              to,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
		BasicConstraintsValid: true,
	}
	a.addURLs(tmpl, iss.ID, true)
	return tmpl
}

// policyTemplate returns what a policy makes of a certificate that is issued now.
func (a *Authority) policyTemplate(
	iss *issuer, policy Policy, p Period, usage x509.ExtKeyUsage,
) (*x509.Certificate, error) {
	from, to, err := p.in(policy, a.now(), a.cfg.Backdate)
	if err != nil {
		return nil, err
	}
	if from, to, err = p.within(from, to, iss, policy.ForServers()); err != nil {
		return nil, err
	}
	tmpl := a.leafTemplate(iss, from, to, usage)
	for _, o := range policy.OIDs {
		oid, err := x509.ParseOID(o)
		if err != nil {
			return nil, postern.Errorf(postern.Internal, "profile %s: %w", policy.Profile, err)
		}
		tmpl.Policies = append(tmpl.Policies, oid)
	}
	return tmpl, nil
}

// signUnder signs the template for a key, which is made here if there is none, as a
// policy says.
func (a *Authority) signUnder(
	iss *issuer, policy Policy, tmpl *x509.Certificate, pub crypto.PublicKey, c Certificate, by postern.Actor,
) (*Issued, error) {
	var made crypto.Signer
	if pub == nil {
		var err error
		if made, err = policy.newKey(); err != nil {
			return nil, postern.Errorf(postern.Internal, "make a key: %w", err)
		}
		pub = made.Public()
	} else if err := a.checkSubjectKey(pub); err != nil {
		return nil, err
	}
	if err := policy.checkKey(pub); err != nil {
		return nil, err
	}
	if _, ok := pub.(*rsa.PublicKey); ok && !policy.SignOnly {
		// TLS 1.2 without forward secrecy asks a server for it, and libvirt both sides.
		tmpl.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	out, err := a.sign(iss, tmpl, pub, c, by)
	if err != nil {
		return nil, err
	}
	out.Key = made
	return out, nil
}

// sign signs the template for the key. The certificate is not recorded yet.
func (a *Authority) sign(iss *issuer, tmpl *x509.Certificate, pub crypto.PublicKey, c Certificate,
	by postern.Actor,
) (*Issued, error) {
	out := &Issued{By: by, Chain: a.chain(iss), Roots: a.Roots()}
	if !tmpl.NotAfter.After(a.now()) {
		return nil, endedError(iss, "has expired")
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "public key: %w", err)
	}
	if tmpl.SubjectKeyId, err = keyID(spki); err != nil {
		return nil, err
	}
	der, err := iss.signLeaf(tmpl, pub, spki)
	if err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "sign with the %s CA: %w", iss.ID, err)
	}
	if out.Leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, postern.Errorf(postern.Internal, "the certificate just signed does not parse: %w", err)
	}
	out.Certificate = a.entry(out.Leaf, iss.ID, c.Profile)
	out.Policy, out.Person, out.Label, out.Names, out.Renews = c.Policy, c.Person, c.Label, c.Names, c.Renews
	out.Event = issuedEvent(out.Certificate, by)
	if key := out.Attested(); key != "" {
		out.Event.Details["attested"] = key
	}
	return out, nil
}

// checkSubjectKey refuses keys that are weak, and keys of the CAs themselves. The
// store refuses those that were revoked for compromise.
func (a *Authority) checkSubjectKey(pub crypto.PublicKey) error {
	if err := CheckKey(pub); err != nil {
		return err
	}
	for _, i := range a.list() {
		if samePublic(pub, i.pub) {
			return postern.Errorf(postern.Denied, "that is the key of the %s CA",
				i.ID).WithHint("make a key of your own for each certificate")
		}
	}
	return nil
}

// PermitKey returns an error for a key that is not accepted, in a certificate or
// as an account's key: it is weak (Invalid), a CA's own, or was revoked for
// compromise (Denied).
func (a *Authority) PermitKey(ctx context.Context, pub crypto.PublicKey) error {
	if err := a.checkSubjectKey(pub); err != nil {
		return err
	}
	key, err := KeyHash(pub)
	if err != nil {
		return err
	}
	list, err := a.store.Certificates(ctx, Filter{Key: key, Reason: postern.KeyCompromise, Limit: 1})
	if err == nil && len(list) > 0 {
		return ErrKeyKnown
	}
	return err
}

// ErrKeyKnown refuses a key that was revoked for compromise.
var ErrKeyKnown error = postern.Errorf(postern.Denied,
	"the key was revoked because others may know it").WithHint("make a new key")

// entry returns what the store keeps of a certificate.
func (a *Authority) entry(cert *x509.Certificate, issuer string, p Profile) Certificate {
	return Certificate{
		Serial:    SerialString(cert.SerialNumber),
		Issuer:    issuer,
		Profile:   p,
		Subject:   SubjectString(cert.RawSubject),
		Key:       hashPKIX(cert.RawSubjectPublicKeyInfo),
		DER:       cert.Raw,
		NotBefore: cert.NotBefore,
		NotAfter:  cert.NotAfter,
		Issued:    a.cfg.Now().UTC().Truncate(time.Microsecond),
	}
}

func issuedEvent(c Certificate, by postern.Actor) postern.Event {
	ev := postern.Event{
		Kind:    postern.EventCertIssued,
		Outcome: postern.OK,
		Person:  c.Person,
		Address: by.Address,
		Object:  c.Serial,
		Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: c.Serial}},
		Details: map[string]string{
			"profile": string(c.Profile), "issuer": c.Issuer,
			"not_after": c.NotAfter.Format(time.RFC3339),
		},
	}
	if len(c.Names) > 0 {
		ev.Details["names"] = strings.Join(c.Names, " ")
	}
	if other := by.By(c.Person); other != "" {
		ev.Details["by"] = other
	}
	if by.Credential.Kind == string(postern.APIToken) {
		ev.Details["token"] = by.Credential.ID
	}
	if c.Renews != "" {
		ev.Kind = postern.EventCertRenewed
		ev.Details["renews"] = c.Renews
	}
	return ev
}

// Load returns an issued certificate as Issue did, without its key.
func (a *Authority) Load(ctx context.Context, serial string) (*Issued, error) {
	c, err := a.store.Certificate(ctx, serial)
	if err != nil {
		return nil, err
	}
	iss, err := a.issuer(ctx, c.Issuer)
	if err != nil {
		return nil, err
	}
	out := &Issued{Certificate: c, Roots: a.Roots()}
	if iss.Role != Root {
		out.Chain = a.chain(iss)
	}
	if out.Leaf, err = x509.ParseCertificate(c.DER); err != nil {
		return nil, postern.Errorf(postern.Internal, "certificate %s: %w", serial, err)
	}
	return out, nil
}

// Certificates returns what the filter selects, newest first.
func (a *Authority) Certificates(ctx context.Context, f Filter) ([]Certificate, error) {
	return a.store.Certificates(ctx, f)
}
