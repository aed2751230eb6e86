package ca

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
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
