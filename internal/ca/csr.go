package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxCSR bounds a certificate request. One of RSA 8192 with a hundred names is
// smaller.
const maxCSR = 64 << 10

// CSR is a certificate request that was checked: its signature is valid, its key
// is strong enough, and it asks for nothing that no certificate here contains.
type CSR struct {
	*x509.CertificateRequest
	Names  []string // server names, cleaned, the CN among them if it is one
	Emails []string // cleaned
}

// ParseCSR reads a request (PKCS#10) in PEM or DER. Errors are Invalid and say
// in words what is wrong.
func ParseCSR(data []byte) (*CSR, error) {
	req, err := readCSR(data)
	if err != nil {
		return nil, err
	}
	return checkCSR(req)
}

// CSRKey returns the key of a request, and nothing that it asks for.
func CSRKey(data []byte) (crypto.PublicKey, error) {
	req, err := readCSR(data)
	if err != nil {
		return nil, err
	}
	return req.PublicKey, nil
}

// parseCSR reads a request that becomes what r says. Where a server's names are given
// and need no proof, only its key is read: appliances write into theirs what they like.
func parseCSR(data []byte, r SignRequest) (*CSR, error) {
	if r.client() || r.Names == nil || r.Proved != nil {
		return ParseCSR(data)
	}
	req, err := readCSR(data)
	if err != nil {
		return nil, err
	}
	return &CSR{CertificateRequest: req}, nil
}

// readCSR reads a request whose key is strong enough and signed it.
func readCSR(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > maxCSR {
		return nil, postern.Errorf(postern.Invalid, "the certificate request is larger than %d KiB", maxCSR>>10)
	}
	der, err := csrDER(data)
	if err != nil {
		return nil, err
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "not a certificate request: %w",
			err).WithHint("make one: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc …")
	}
	if err := CheckKey(req.PublicKey); err != nil {
		return nil, err
	}
	if err := req.CheckSignature(); err != nil {
		return nil,
			postern.Errorf(postern.Invalid,
				"the request's signature is not valid: it was not made with the request's key").
				WithHint("sign with SHA-256 or better")
	}
	return req, nil
}

func csrDER(data []byte) ([]byte, error) {
	if len(data) > 0 && data[0] == 0x30 {
		return data, nil
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, postern.Errorf(postern.Invalid, "no certificate request found").
				WithHint("it starts with -----BEGIN CERTIFICATE REQUEST-----")
		}
		switch {
		case strings.HasSuffix(block.Type, "CERTIFICATE REQUEST"):
			return block.Bytes, nil
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, postern.Errorf(postern.Invalid, "that holds a private key, not only a certificate request").
				WithHint("a private key stays where it was made: treat this one as lost, and make another")
		case block.Type == "CERTIFICATE":
			return nil, postern.Errorf(postern.Invalid, "that is a certificate, not a certificate request")
		}
	}
}

func checkCSR(req *x509.CertificateRequest) (*CSR, error) {
	c := &CSR{CertificateRequest: req}
	if len(req.URIs) > 0 {
		return nil, postern.Errorf(postern.Invalid, "the request asks for the name %q: URIs are not certified",
			req.URIs[0])
	}
	if err := checkSANKinds(req); err != nil {
		return nil, err
	}
	var asked []string
	// A CN that is a host name is a name to certify; other text there is ignored.
	if cn, err := CleanName(req.Subject.CommonName); err == nil && (strings.Contains(cn, ".") ||
		len(req.DNSNames)+len(req.IPAddresses) == 0) && len(req.EmailAddresses) == 0 {
		asked = append(asked, cn)
	}
	asked = append(asked, req.DNSNames...)
	for _, ip := range req.IPAddresses {
		asked = append(asked, ip.String())
	}
	if len(asked) > 0 {
		_, clean, err := cleanNames(asked)
		if err != nil {
			return nil, err
		}
		c.Names = clean
	}
	for _, m := range req.EmailAddresses {
		clean, err := postern.CleanEmail(m)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(c.Emails, clean) {
			c.Emails = append(c.Emails, clean)
		}
	}
	return c, nil
}

var oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17}

var errNamesMalformed = postern.Errorf(postern.Invalid, "the request's alternative names are malformed")

// checkSANKinds refuses a request for kinds of name (RFC 5280 section 4.2.1.6)
// that crypto/x509 ignores: otherName, directoryName and so on.
func checkSANKinds(req *x509.CertificateRequest) error {
	for _, ext := range req.Extensions {
		if !ext.Id.Equal(oidSAN) {
			continue
		}
		in := cryptobyte.String(ext.Value)
		var list, name cryptobyte.String
		var tag cbasn1.Tag
		if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() {
			return errNamesMalformed
		}
		for !list.Empty() {
			if !list.ReadAnyASN1(&name, &tag) {
				return errNamesMalformed
			}
			switch tag {
			case cbasn1.Tag.ContextSpecific(nameMail), cbasn1.Tag.ContextSpecific(nameDNS),
				cbasn1.Tag.ContextSpecific(nameURI), cbasn1.Tag.ContextSpecific(nameIP):
			default:
				return postern.Errorf(postern.Invalid,
					"the request asks for a name of a kind (%d) that is not certified",
					tag&0x1f).WithHint("DNS names, IP addresses and one's own e-mail address are")
			}
		}
	}
	return nil
}

// SignRequest says what a CSR may become.
type SignRequest struct {
	Profile Profile  // ProfileClient, or one for servers
	Names   []string // server: names to certify; nil: those that the CSR asks for
	// server: if not nil, every name, also of the CSR, must be one of these, or the wildcard listed here
	Proved []string
	Person string   // whose client certificate it becomes, whatever Profile says
	Label  string   // client
	Units  []string // client: OU values
	// Attestation proves that a client's key was made in a YubiKey, as [piv.Check] takes it; it may be empty.
	Attestation []byte
	Period
	By postern.Actor
}

// client reports whether a person's certificate is asked for.
func (r SignRequest) client() bool { return r.Person != "" || r.Profile == ProfileClient }

// IssueCSR issues a certificate for the key of a request, in PEM or DER. Only the
// key and the names are taken from the request; a client's identity comes
// from the person. A name that was not proved, or another person's e-mail
// address, is Denied. The certificate is in the store when this returns.
func (a *Authority) IssueCSR(ctx context.Context, csr []byte, r SignRequest) (*Issued, error) {
	i, err := a.PrepareCSR(ctx, csr, r)
	return a.record(ctx, i, err)
}

// PrepareCSR is IssueCSR for a caller that records the certificate with what
// belongs to it: see [Issued].
func (a *Authority) PrepareCSR(ctx context.Context, csr []byte, r SignRequest) (*Issued, error) {
	c, err := parseCSR(csr, r)
	if err != nil {
		return nil, err
	}
	return a.prepareParsed(ctx, c, r)
}

func (a *Authority) prepareParsed(ctx context.Context, c *CSR, r SignRequest) (*Issued, error) {
	if r.client() {
		return a.clientCSR(ctx, c, r)
	}
	if len(r.Attestation) > 0 {
		return nil, errAttested
	}
	return a.serverCSR(c, r)
}

var errAttested = postern.Errorf(postern.Invalid, "an attestation is for the key of a person's certificate").
	WithHint("say whose it is")

func (a *Authority) serverCSR(c *CSR, r SignRequest) (*Issued, error) {
	if len(c.Emails) > 0 {
		return nil, postern.Errorf(postern.Invalid,
			"the request asks for the e-mail address %s: a server certificate carries none", c.Emails[0])
	}
	list := c.Names
	if r.Names != nil {
		_, clean, err := cleanNames(r.Names)
		if err != nil {
			return nil, err
		}
		for _, n := range c.Names {
			if !slices.Contains(clean, n) {
				return nil, postern.Errorf(postern.Denied,
					"the request asks for %s, which is not among the names to certify", n)
			}
		}
		list = clean
	}
	if r.Proved != nil {
		for _, n := range list {
			if !slices.Contains(r.Proved, n) {
				return nil, postern.Errorf(postern.Denied, "the name %s was not proved", n)
			}
		}
	}
	return a.prepareServer(ServerRequest{
		Names: list, Profile: r.Profile, Key: c.PublicKey, Period: r.Period,
		By: r.By,
	})
}

func (a *Authority) clientCSR(ctx context.Context, c *CSR, r SignRequest) (*Issued, error) {
	p, err := a.store.Person(ctx, r.Person)
	if err != nil {
		return nil, err
	}
	for _, m := range c.Emails {
		if m != p.Email {
			return nil, postern.Errorf(postern.Denied, "the request asks for the e-mail address %s, which is not %s's",
				m, p.Name)
		}
	}
	if len(c.DNSNames)+len(c.IPAddresses) > 0 {
		return nil, postern.Errorf(postern.Invalid,
			"the request asks for the server name %s: a client certificate carries none", c.Names[0])
	}
	return a.prepareClient(ctx, ClientRequest{
		Person: r.Person, Label: r.Label, Units: r.Units, Key: c.PublicKey, Attestation: r.Attestation,
		Period: r.Period, By: r.By,
	})
}
