package ca

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// attributes are the short names of subject attributes (RFC 4514 section 3, and
// OpenSSL's for the e-mail address).
var attributes = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
	"2.5.4.46": "dnQualifier", "1.2.840.113549.1.9.1": "emailAddress",
}

// SubjectString writes a DER name in the order of the certificate, every value
// kept: "O=Example, CN=dan, emailAddress=dan@example.com". Commas and other
// characters that could imitate the syntax are escaped with a backslash.
func SubjectString(raw []byte) string {
	var dn pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &dn); err != nil || len(rest) > 0 {
		return "#" + hex.EncodeToString(raw)
	}
	var parts []string
	for _, rdn := range dn {
		var multi []string
		for _, av := range rdn {
			name, ok := attributes[av.Type.String()]
			if !ok {
				name = av.Type.String()
			}
			value, ok := av.Value.(string)
			if !ok {
				value = "?"
			}
			multi = append(multi, name+"="+escapeValue(value))
		}
		parts = append(parts, strings.Join(multi, "+"))
	}
	return strings.Join(parts, ", ")
}

func escapeValue(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case strings.ContainsRune(`,+=\/"<>;#`, r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\` + hex.EncodeToString([]byte{byte(r)}))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// subjectPublicKey returns the bits of a PKIX public key, which key identifiers
// are made from.
func subjectPublicKey(pkixDER []byte) ([]byte, error) {
	outer := cryptobyte.String(pkixDER)
	var spki cryptobyte.String
	var bits []byte
	if !outer.ReadASN1(&spki, cbasn1.SEQUENCE) || !spki.SkipASN1(cbasn1.SEQUENCE) ||
		!spki.ReadASN1BitStringAsBytes(&bits) {
		return nil, postern.Errorf(postern.Invalid, "the public key is malformed")
	}
	return bits, nil
}

// SameSubject reports whether two texts name one subject, whatever program wrote them:
// attributes in any order, the e-mail address as emailAddress or, by GnuTLS, EMAIL.
func SameSubject(a, b string) bool { return slices.Equal(attributesIn(a), attributesIn(b)) }

// CommonName returns the CN in a subject's text, "" if there is none.
func CommonName(subject string) string {
	for _, a := range attributesIn(subject) {
		if name, ok := strings.CutPrefix(a, "CN="); ok {
			return name
		}
	}
	return ""
}

// attributesIn returns the attributes in a subject's text, sorted.
func attributesIn(subject string) (list []string) {
	from, escaped := 0, false
	for i := 0; i <= len(subject); i++ {
		switch {
		case i == len(subject) || subject[i] == ',' && !escaped:
			name, value, _ := strings.Cut(strings.TrimLeft(subject[from:i], " "), "=")
			if strings.EqualFold(name, "EMAIL") {
				name = "emailAddress"
			}
			list = append(list, name+"="+value)
			from, escaped = i+1, false
		default:
			escaped = subject[i] == '\\' && !escaped
		}
	}
	slices.Sort(list)
	return list
}
