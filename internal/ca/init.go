package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"math/big"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Init makes the root, an intermediate for servers and one for clients, and the
// SSH user and host CAs, all in one transaction. It fails with Conflict, and
// changes nothing, if the store holds CAs already.
func Init(ctx context.Context, cfg Config, store Store) (*Authority, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	existing, err := store.Issuers(ctx)
	if err != nil {
		return nil, err
	}
	if len(existing) > 0 {
		return nil,
			postern.Errorf(postern.Conflict, "there is a certificate authority here already; it stays as it is").
				WithHint("choose another state directory for a second one")
	}
	a := &Authority{cfg: cfg.withDefaults(), store: store}
	if a.url, a.chosen, err = a.readURL(ctx); err != nil {
		return nil, err
	}
	var issuers []Issuer
	var certs []Certificate
	root, _, err := a.newRoot(ctx)
	if err != nil {
		return nil, err
	}
	issuers = append(issuers, root.Issuer)
	for _, role := range []Role{Server, Client} {
		iss, cert, err := a.newIntermediate(ctx, root, role, string(role))
		if err != nil {
			return nil, err
		}
		issuers, certs = append(issuers, iss.Issuer), append(certs, cert)
	}
	for _, role := range []Role{SSHUser, SSHHost} {
		iss, err := a.newKey(ctx, role, string(role), a.cfg.SSHAlgorithm)
		if err != nil {
			return nil, err
		}
		issuers = append(issuers, iss.Issuer)
	}
	if err := sharedKey(issuers); err != nil {
		return nil, err
	}
	var events []postern.Event
	for _, i := range issuers {
		events = append(events, createdEvent(i))
	}
	if err := store.AddIssuers(ctx, issuers, certs, events...); err != nil {
		return nil, err
	}
	if cfg.URL != "" {
		if err := store.SetCASetting(ctx, settingURL, strings.TrimSuffix(cfg.URL, "/")); err != nil {
			return nil, err
		}
	}
	if err := a.Reload(ctx); err != nil {
		return nil, err
	}
	// The first list of the root, made while its key is surely here.
	if _, err := a.CRL(ctx, string(Root)); err != nil {
		return nil, err
	}
	return a, nil
}

// sharedKey refuses CAs that would share one key of an HSM.
func sharedKey(issuers []Issuer) error {
	owners := map[string]string{}
	for _, i := range issuers {
		if other := owners[string(i.PublicKey)]; other != "" {
			return postern.Errorf(postern.Invalid, "the %s and the %s CA would have one key, %s", other, i.ID,
				i.KeyURI).
				WithHint("leave object= and id= out of the URI, so that a key is made for each; only the " +
					"root's own URI may name one key")
		}
		owners[string(i.PublicKey)] = i.ID
	}
	return nil
}

func createdEvent(i Issuer) postern.Event {
	return postern.Event{
		Kind: postern.EventCACreated, Outcome: postern.OK, Object: i.ID,
		Details: map[string]string{"role": string(i.Role)},
	}
}

// newKey makes an issuer's key, sealed or elsewhere.
func (a *Authority) newKey(ctx context.Context, role Role, id string, alg Algorithm) (*issuer, error) {
	iss := &issuer{Issuer: Issuer{ID: id, Role: role, Created: a.now()}}
	hsm, err := a.hsmFor(role)
	switch {
	case err != nil:
	case hsm != "":
		iss.signer, iss.KeyURI, err = a.cfg.Keys.CreateKey(ctx, hsm, id, alg)
	default:
		if iss.signer, err = GenerateKey(alg); err == nil {
			iss.Key, err = a.seal(id, iss.signer)
		}
	}
	if err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "CA %s: make its key: %w", id, err)
	}
	iss.pub = iss.signer.Public()
	for _, other := range a.list() {
		if samePublic(iss.pub, other.pub) {
			return nil, postern.Errorf(postern.Invalid, "the CA %s would have the key of the %s CA", id, other.ID).
				WithHint("leave object= and id= out of the URI, so that a key is made")
		}
	}
	if iss.PublicKey, err = x509.MarshalPKIXPublicKey(iss.pub); err != nil {
		return nil, postern.Errorf(postern.Internal, "CA %s: %w", id, err)
	}
	return iss, nil
}

// hsmFor returns the URI of the HSM in which a role's next key is made, or "" for
// the Store.
func (a *Authority) hsmFor(role Role) (string, error) {
	uri := a.cfg.KeyURI
	if role == Root && a.cfg.RootKeyURI != "" {
		uri = a.cfg.RootKeyURI
	}
	switch last := a.newest(role); {
	case uri == KeyInStore:
		return "", nil
	case uri != "" || last == nil || last.KeyURI == "":
		return uri, nil
	case a.cfg.Keys == nil:
		return "", noKeys(last)
	default:
		return a.cfg.Keys.HSM(last.KeyURI)
	}
}

func noKeys(i *issuer) error {
	return postern.Errorf(postern.Unavailable, "the key of the %s CA is in an HSM that cannot be used from here", i.ID)
}

func (a *Authority) seal(id string, key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "CA %s: encode its key: %w", id, err)
	}
	defer clear(der)
	return a.store.Seal(keyPurpose, id, der)
}

// now returns the time, to the second as certificates carry it.
func (a *Authority) now() time.Time { return a.cfg.Now().UTC().Truncate(time.Second) }

func (a *Authority) newRoot(ctx context.Context) (*issuer, Certificate, error) {
	iss, err := a.newKey(ctx, Root, string(Root), a.cfg.Algorithm)
	if err != nil {
		return nil, Certificate{}, err
	}
	tmpl := a.caTemplate(a.cfg.Name+" Root CA", a.cfg.RootValidity)
	var list []Constraint
	for _, d := range a.cfg.Domains {
		c, err := ParseConstraint(d)
		if err != nil {
			return nil, Certificate{}, err
		}
		list = append(list, c)
	}
	constrain(tmpl, list)
	cert, err := a.signCA(iss, tmpl, iss)
	return iss, cert, err
}

// newIntermediate makes an intermediate under a root whose key is at hand. It
// repeats the root's constraints, for verifiers that ignore those of a trust
// anchor (RFC 5280 section 6.2).
func (a *Authority) newIntermediate(ctx context.Context, root *issuer, role Role, id string) (*issuer, Certificate,
	error,
) {
	iss, err := a.newKey(ctx, role, id, a.cfg.Algorithm)
	if err != nil {
		return nil, Certificate{}, err
	}
	title, usage := "Server CA", x509.ExtKeyUsageServerAuth
	if role == Client {
		title, usage = "Client CA", x509.ExtKeyUsageClientAuth
	}
	tmpl := a.caTemplate(a.cfg.Name+" "+title+numberOf(id), a.cfg.IntermediateValidity)
	tmpl.MaxPathLenZero = true
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	if tmpl.NotAfter.After(root.cert.NotAfter) {
		tmpl.NotAfter = root.cert.NotAfter
	}
	constrainAs(tmpl, root.cert)
	a.addURLs(tmpl, root.ID, false)
	cert, err := a.signCA(iss, tmpl, root)
	return iss, cert, err
}

// numberOf returns what a CA's name ends with: " 2" for server-2.
func numberOf(id string) string {
	if _, number, ok := strings.Cut(id, "-"); ok {
		return " " + number
	}
	return ""
}

func (a *Authority) caTemplate(cn string, validity time.Duration) *x509.Certificate {
	now := a.now()
	subject := pkix.Name{Organization: []string{a.cfg.Name}, CommonName: cn}
	if a.cfg.Country != "" {
		subject.Country = []string{a.cfg.Country}
	}
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               subject,
		NotBefore:             now.Add(-a.cfg.Backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// signCA signs an issuer's certificate by a root, which may be itself.
func (a *Authority) signCA(iss *issuer, tmpl *x509.Certificate, root *issuer) (Certificate, error) {
	id, err := keyID(iss.PublicKey)
	if err != nil {
		return Certificate{}, err
	}
	tmpl.SubjectKeyId = id
	parent := root.cert
	if root == iss {
		parent = tmpl
	}
	if iss.Certificate, err = x509.CreateCertificate(rand.Reader, tmpl, parent, iss.pub, root.signer); err != nil {
		return Certificate{}, postern.Errorf(postern.CodeOf(err), "sign CA %s: %w", iss.ID, err)
	}
	if iss.cert, err = x509.ParseCertificate(iss.Certificate); err != nil {
		return Certificate{}, postern.Errorf(postern.Internal, "CA %s: %w", iss.ID, err)
	}
	return a.entry(iss.cert, root.ID, ProfileIntermediate), nil
}

// addURLs writes where to fetch the issuer's revocation list and certificate,
// and where to ask about one certificate.
func (a *Authority) addURLs(tmpl *x509.Certificate, issuer string, ocsp bool) {
	base := a.URL()
	if base == "" {
		return
	}
	tmpl.CRLDistributionPoints = []string{base + "/crl/" + issuer + ".crl"}
	tmpl.IssuingCertificateURL = []string{base + "/ca/" + issuer + ".cer"}
	if ocsp {
		tmpl.OCSPServer = []string{base + "/ocsp"}
	}
}

// newSerial returns the milliseconds of Unix time followed by 80 random bits: a
// serial number cannot be predicted, and those issued together are close in an
// index.
func newSerial() *big.Int {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(time.Now().UnixMilli())<<16)
	rand.Read(b[6:])
	return new(big.Int).SetBytes(b[:])
}

// SerialString returns a serial number as the Store and the timeline write it.
func SerialString(n *big.Int) string { return n.Text(16) }

// ParseSerial reads a serial number in hex, as openssl and browsers show it too:
// with colons, capitals or leading zeros.
func ParseSerial(s string) (string, error) {
	clean := strings.NewReplacer(":", "", " ", "").Replace(strings.TrimSpace(s))
	n, ok := new(big.Int).SetString(clean, 16)
	if !ok || n.Sign() <= 0 || len(clean) > 42 {
		return "", postern.Errorf(postern.Invalid, "%q is not a serial number",
			s).WithHint("list the certificates to see their serial numbers")
	}
	return SerialString(n), nil
}

// ParseSerials reads serial numbers as ParseSerial does.
func ParseSerials(list []string) ([]string, error) {
	serials := make([]string, len(list))
	for i, s := range list {
		var err error
		if serials[i], err = ParseSerial(s); err != nil {
			return nil, err
		}
	}
	return serials, nil
}

// NewIntermediate makes the next intermediate of a role, Server or Client, which
// issues from now on; the older ones still sign CRLs and OCSP answers for what they
// issued. rootKey is the root's key for this call; nil if it is on this machine.
func (a *Authority) NewIntermediate(ctx context.Context, role Role, rootKey crypto.Signer) (Issuer, error) {
	if role != Server && role != Client {
		return Issuer{}, postern.Errorf(postern.Invalid, "an intermediate is for %q or %q, not %q", Server, Client,
			role)
	}
	if err := a.Reload(ctx); err != nil {
		return Issuer{}, err
	}
	return a.addIntermediate(ctx, role, rootKey)
}

// addIntermediate makes the role's next intermediate after those that were last
// loaded. It fails with Conflict if another server has made it since.
func (a *Authority) addIntermediate(ctx context.Context, role Role, rootKey crypto.Signer) (Issuer, error) {
	root, err := a.rootWith(rootKey)
	if err != nil {
		return Issuer{}, err
	}
	iss, cert, err := a.newIntermediate(ctx, root, role, a.nextID(role))
	if err != nil {
		return Issuer{}, err
	}
	if err := a.store.AddIssuers(ctx, []Issuer{iss.Issuer}, []Certificate{cert},
		createdEvent(iss.Issuer)); err != nil {
		return Issuer{}, err
	}
	if err := a.Reload(ctx); err != nil {
		return Issuer{}, err
	}
	pub := iss.Issuer
	pub.Key = nil
	return pub, nil
}

// rootWith returns the newest root ready to sign: with the key that is on this machine,
// or else with key.
func (a *Authority) rootWith(key crypto.Signer) (*issuer, error) {
	root := *a.newest(Root)
	if key != nil {
		if !samePublic(key.Public(), root.pub) {
			return nil, postern.Errorf(postern.Invalid, "that is not the key of this root")
		}
		root.signer = key
	}
	if root.signer == nil {
		return nil, errRootKeyAbsent
	}
	return &root, nil
}

var errRootKeyAbsent = postern.Errorf(postern.Unavailable, "the root's key is not on this machine").
	WithHint("lend the root's key for this once")

// rootOf returns the root that a key is of, or a Denied error.
func (a *Authority) rootOf(key crypto.Signer) (*issuer, error) {
	for _, i := range a.list() {
		if i.Role == Root && samePublic(key.Public(), i.pub) {
			root := *i
			return &root, nil
		}
	}
	return nil, postern.Errorf(postern.Denied, "that is no root's key of this authority").
		WithHint("export the root's key first")
}

// RootKeyMoves returns an Invalid error if the keys of all roots are in an HSM: such a key
// is not exported, removed or restored.
func (a *Authority) RootKeyMoves() error {
	var err error
	for _, i := range a.list() {
		if i.Role != Root {
			continue
		}
		if err = i.moves(); err == nil {
			return nil
		}
	}
	return err
}

func (i *issuer) moves() error {
	if i.KeyURI != "" {
		return postern.Errorf(postern.Invalid, "the root's key is in the HSM %s and cannot leave it", i.KeyURI).
			WithHint("unplug the HSM and keep it elsewhere; it is needed to make and revoke intermediates, " +
				"and twice a year for the root's revocation list")
	}
	return nil
}

// ExportRootKey returns the private key of the root of that ID, of the newest for "",
// encrypted under a passphrase, and says so on the timeline.
func (a *Authority) ExportRootKey(ctx context.Context, id string, passphrase []byte) ([]byte, error) {
	root := a.newest(Root)
	if id != "" {
		var err error
		if root, err = a.issuer(ctx, id); err != nil {
			return nil, err
		}
	}
	if root.Role != Root {
		return nil, postern.Errorf(postern.Invalid, "%s is not a root", id)
	}
	if err := root.moves(); err != nil {
		return nil, err
	}
	if root.signer == nil {
		return nil, errRootKeyAbsent
	}
	if len(passphrase) < 8 {
		return nil, postern.Errorf(postern.Invalid, "the passphrase is shorter than 8 bytes")
	}
	data, err := EncodeKey(root.signer, passphrase)
	if err != nil {
		return nil, err
	}
	return data, a.store.Append(ctx, postern.Event{
		Kind: postern.EventCAKeyExported, Outcome: postern.OK,
		Object: root.ID,
	})
}

// RemoveRootKey deletes the key of the root that it belongs to from this machine. The
// caller passes it to prove that there is a copy. Everything but making and revoking
// intermediates still works; the root's last revocation list stays valid as long as the
// root.
func (a *Authority) RemoveRootKey(ctx context.Context, key crypto.Signer) error {
	root, err := a.rootOf(key)
	if err != nil {
		return err
	}
	if err := root.moves(); err != nil {
		return err
	}
	if root.signer == nil {
		return errRootKeyAbsent
	}
	if err := a.signRootCRL(ctx, root, root.cert.NotAfter); err != nil {
		return err
	}
	err = a.store.SetIssuerKey(ctx, root.ID, nil, postern.Event{
		Kind: postern.EventCAKeyRemoved, Outcome: postern.OK,
		Object: root.ID,
	})
	if err != nil {
		return err
	}
	return a.Reload(ctx)
}

// RestoreRootKey keeps the key of the root that it belongs to on this machine again.
func (a *Authority) RestoreRootKey(ctx context.Context, key crypto.Signer) error {
	root, err := a.rootOf(key)
	if err != nil {
		return err
	}
	if err := root.moves(); err != nil {
		return err
	}
	sealed, err := a.seal(root.ID, key)
	if err != nil {
		return err
	}
	err = a.store.SetIssuerKey(ctx, root.ID, sealed, postern.Event{
		Kind:    postern.EventCAKeyRestored,
		Outcome: postern.OK, Object: root.ID,
	})
	if err != nil {
		return err
	}
	return a.Reload(ctx)
}
