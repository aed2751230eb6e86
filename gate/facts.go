package gate

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/piv"
)

// maxValues bounds how many values a certificate may carry in one place: what
// has more is not a person's certificate, and rules' costs count on it.
const maxValues = 64

// Certificate is what one certificate says, as rules read it.
type Certificate struct {
	X509               *x509.Certificate
	Subject, Issuer    Name
	SAN                AltNames
	Serial             string // lower-case hex, without leading zeros
	Version            int
	NotBefore          time.Time
	NotAfter           time.Time
	Fingerprint        string // SHA-256 of the certificate, hex
	SPKI               string // SHA-256 of the public key, hex
	KeyAlgorithm       string
	SignatureAlgorithm string
	KeyUsage           []string
	ExtKeyUsage        []string
	// Attested says that the CA which issued the certificate has proof that the key was made
	// in a YubiKey; PINPolicy and TouchPolicy when that asks for them ("" where not attested).
	Attested               bool
	PINPolicy, TouchPolicy string
	DeviceSerial           string // of the YubiKey, decimal; "" if not known
}

// AltNames are a certificate's subject alternative names.
type AltNames struct{ Email, DNS, URI, IP []string }

// ReadCertificate reads what c says. It fails if a name cannot be parsed or
// there is more in it than a rule could judge.
func ReadCertificate(c *x509.Certificate) (*Certificate, error) {
	subject, err := ReadName(c.RawSubject)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	issuer, err := ReadName(c.RawIssuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	f := &Certificate{
		X509:               c,
		Subject:            subject,
		Issuer:             issuer,
		SAN:                AltNames{Email: c.EmailAddresses, DNS: c.DNSNames},
		Serial:             c.SerialNumber.Text(16),
		Version:            c.Version,
		NotBefore:          c.NotBefore,
		NotAfter:           c.NotAfter,
		Fingerprint:        sum(c.Raw),
		SPKI:               sum(c.RawSubjectPublicKeyInfo),
		KeyAlgorithm:       c.PublicKeyAlgorithm.String(),
		SignatureAlgorithm: c.SignatureAlgorithm.String(),
		KeyUsage:           keyUsages(c.KeyUsage),
		ExtKeyUsage:        extKeyUsages(c),
	}
	if a, found, err := piv.Read(c.Extensions); err == nil && found {
		f.Attested, f.PINPolicy, f.TouchPolicy = true, a.PIN, a.Touch
		if a.Serial != 0 {
			f.DeviceSerial = strconv.FormatUint(uint64(a.Serial), 10)
		}
	}
	for _, u := range c.URIs {
		f.SAN.URI = append(f.SAN.URI, u.String())
	}
	for _, ip := range c.IPAddresses {
		f.SAN.IP = append(f.SAN.IP, ip.String())
	}
	if len(f.SAN.Email)+len(f.SAN.DNS)+len(f.SAN.URI)+len(f.SAN.IP) > maxValues || len(f.ExtKeyUsage) > maxValues {
		return nil, postern.Errorf(postern.Invalid, "more than %d alternative names or usages", maxValues)
	}
	return f, nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Emails returns the addresses that the certificate names, in its subject and
// its alternative names, each once, cleaned.
func (c *Certificate) Emails() []string {
	var out []string
	seen := make(map[string]bool)
	for _, e := range append(c.Subject.Values("email"), c.SAN.Email...) {
		if clean, err := postern.CleanEmail(e); err == nil && !seen[clean] {
			seen[clean] = true
			out = append(out, clean)
		}
	}
	return out
}

// Extension returns the text values in the extension with the given OID: the
// strings that its DER encodes, directly or in a sequence. It is nil if there
// is no such extension, or no text in it.
func (c *Certificate) Extension(oid string) []string {
	for _, e := range c.X509.Extensions {
		if e.Id.String() == oid {
			return texts(e.Value)
		}
	}
	return nil
}

func texts(der []byte) []string {
	var v asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) > 0 {
		return nil
	}
	if s, ok := text(v); ok {
		return []string{s}
	}
	if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSequence && v.Tag != asn1.TagSet {
		return nil
	}
	var out []string
	for rest := v.Bytes; len(rest) > 0 && len(out) < maxValues; {
		var e asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &e); err != nil {
			return nil
		}
		if s, ok := text(e); ok {
			out = append(out, s)
		}
	}
	return out
}

func text(v asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, asn1.TagBMPString,
		asn1.TagNumericString:
		var s string
		if _, err := asn1.Unmarshal(v.FullBytes, &s); err == nil {
			return s, true
		}
	}
	return "", false
}

// pem returns the certificate in PEM on one line.
func (c *Certificate) pem() string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.X509.Raw})
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\n", " "))
}

// Name is a distinguished name with every value of every attribute, in order.
type Name struct {
	DN         string // RFC 4514, most specific first, as Apache and OpenSSL write it
	attributes []attribute
}

type attribute struct{ kind, short, value string }

// oneline writes the name as X509_NAME_oneline(3) of OpenSSL does, and fails if a
// value has a slash in it: there it could pass for another name.
func (n *Name) oneline() (string, error) {
	var b strings.Builder
	for _, a := range n.attributes {
		if strings.Contains(a.value, "/") {
			return "", fmt.Errorf("%s has a slash in it", a.short)
		}
		b.WriteString("/" + a.short + "=")
		for _, c := range []byte(a.value) {
			if c < ' ' || c > '~' {
				fmt.Fprintf(&b, `\x%02X`, c)
			} else {
				b.WriteByte(c)
			}
		}
	}
	return b.String(), nil
}

// The attribute types that have a name here, and the names that RFC 4514 and
// OpenSSL print.
var attributeTypes = map[string]struct{ field, short string }{
	"2.5.4.3":                    {"cn", "CN"},
	"2.5.4.4":                    {"sn", "SN"},
	"2.5.4.5":                    {"serial", "serialNumber"},
	"2.5.4.6":                    {"c", "C"},
	"2.5.4.7":                    {"l", "L"},
	"2.5.4.8":                    {"st", "ST"},
	"2.5.4.9":                    {"street", "street"},
	"2.5.4.10":                   {"o", "O"},
	"2.5.4.11":                   {"ou", "OU"},
	"2.5.4.12":                   {"title", "title"},
	"2.5.4.13":                   {"description", "description"},
	"2.5.4.17":                   {"postal_code", "postalCode"},
	"2.5.4.42":                   {"gn", "GN"},
	"2.5.4.43":                   {"initials", "initials"},
	"2.5.4.46":                   {"dn_qualifier", "dnQualifier"},
	"0.9.2342.19200300.100.1.1":  {"uid", "UID"},
	"0.9.2342.19200300.100.1.25": {"dc", "DC"},
	"1.2.840.113549.1.9.1":       {"email", "emailAddress"},
}

// ReadName parses a DER-encoded distinguished name.
func ReadName(der []byte) (Name, error) {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil {
		return Name{}, fmt.Errorf("distinguished name: %w", err)
	} else if len(rest) > 0 {
		return Name{}, fmt.Errorf("distinguished name: %d bytes left over", len(rest))
	}
	var n Name
	parts := make([]string, len(rdns))
	for i, rdn := range rdns {
		for _, ava := range rdn {
			a, printed := readAttribute(ava)
			n.attributes = append(n.attributes, a)
			if part := &parts[len(rdns)-1-i]; *part == "" {
				*part = printed
			} else {
				*part += "+" + printed
			}
		}
	}
	if len(n.attributes) > maxValues {
		return Name{}, fmt.Errorf("distinguished name: more than %d attributes", maxValues)
	}
	n.DN = strings.Join(parts, ",")
	return n, nil
}

func readAttribute(ava pkix.AttributeTypeAndValue) (attribute, string) {
	oid := ava.Type.String()
	t, ok := attributeTypes[oid]
	if !ok {
		t.field, t.short = oid, oid
	}
	value, isText := ava.Value.(string)
	if !isText {
		value = fmt.Sprintf("#%v", ava.Value)
	}
	return attribute{t.field, t.short, value}, t.short + "=" + escapeDN(value)
}

// escapeDN escapes a value as RFC 4514 section 2.4 asks, so that no value can
// look like a second attribute.
func escapeDN(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case strings.IndexByte(`,+"\<>;=`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\%02X`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Values returns every value of an attribute, named as in a rule ("cn") or by
// its OID, in the certificate's order; nil if there is none.
func (n Name) Values(kind string) []string {
	var out []string
	for _, a := range n.attributes {
		if a.kind == kind {
			out = append(out, a.value)
		}
	}
	return out
}

var keyUsageNames = []string{
	"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
	"keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly",
}

func keyUsages(u x509.KeyUsage) []string {
	var out []string
	for i, name := range keyUsageNames {
		if u&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

var extKeyUsageNames = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageAny:             "anyExtendedKeyUsage",
	x509.ExtKeyUsageServerAuth:      "serverAuth",
	x509.ExtKeyUsageClientAuth:      "clientAuth",
	x509.ExtKeyUsageCodeSigning:     "codeSigning",
	x509.ExtKeyUsageEmailProtection: "emailProtection",
	x509.ExtKeyUsageTimeStamping:    "timeStamping",
	x509.ExtKeyUsageOCSPSigning:     "OCSPSigning",
}

func extKeyUsages(c *x509.Certificate) []string {
	var out []string
	for _, u := range c.ExtKeyUsage {
		if name, ok := extKeyUsageNames[u]; ok {
			out = append(out, name)
		} else {
			out = append(out, u.OID().String())
		}
	}
	for _, oid := range c.UnknownExtKeyUsage {
		out = append(out, oid.String())
	}
	return out
}
