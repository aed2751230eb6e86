package gate

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The extensions that this file reads, RFC 5280 sections 4.2.1.6 and 4.2.1.10.
var (
	oidAltNames    = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// The kinds of GeneralName that are compared; of any other kind a constraint
// that meets a name refuses.
const (
	nameEmail     = 1
	nameDNS       = 2
	nameDirectory = 4
	nameURI       = 6
	nameIP        = 7
)

// maxComparisons bounds the work that one chain may ask for.
const maxComparisons = 1 << 20

// generalName is a GeneralName: its kind, and the DER inside it.
type generalName struct {
	kind  int
	value []byte
}

// constraints are the subtrees of a NameConstraints extension.
type constraints struct{ permitted, excluded []generalName }

// withinConstraints reports whether every name in a chain, from the client's
// certificate to the trusted CA, lies within the name constraints of the CAs
// above it. It holds RFC 5280 section 4.2.1.10 as OpenSSL does, which is more than
// crypto/x509 does: e-mail addresses and directory names in subjects, and
// constraints that are not critical. Where it is unsure, it refuses.
func withinConstraints(chain []*x509.Certificate) bool {
	work := 0
	for above := len(chain) - 1; above > 0; above-- {
		c, ok := readConstraints(chain[above])
		if !ok {
			return false
		}
		if c == nil {
			continue
		}
		for i, cert := range chain[:above] {
			if i > 0 && bytes.Equal(cert.RawSubject, cert.RawIssuer) {
				continue // a CA's own new key
			}
			names, ok := namesOf(cert, i == 0)
			work += len(names) * (len(c.permitted) + len(c.excluded))
			if !ok || work > maxComparisons || !c.allow(names) {
				return false
			}
		}
	}
	return true
}

// allow reports whether each name lies in a permitted subtree, if there is one
// of its kind, and in no excluded one.
func (c *constraints) allow(names []generalName) bool {
	for _, n := range names {
		permitted, any := false, false
		for _, base := range c.permitted {
			if base.kind == n.kind {
				in, ok := n.within(base.value)
				any, permitted = true, permitted || in
				if !ok {
					return false
				}
			}
		}
		if any && !permitted {
			return false
		}
		for _, base := range c.excluded {
			if base.kind == n.kind {
				if in, ok := n.within(base.value); in || !ok {
					return false
				}
			}
		}
	}
	return true
}

// within reports whether a name lies in a subtree; it is not ok if that cannot
// be said.
func (n generalName) within(base []byte) (in, ok bool) {
	switch n.kind {
	case nameEmail:
		return emailWithin(string(n.value), string(base))
	case nameDNS:
		return hostWithin(string(n.value), string(base), true), plainHost(string(n.value))
	case nameURI:
		return uriWithin(string(n.value), string(base))
	case nameIP:
		return addressWithin(n.value, base)
	case nameDirectory:
		return directoryWithin(n.value, base)
	}
	return false, false
}

// emailWithin compares as RFC 5280 says: a mailbox, all of a host, or, after a
// dot, all below a domain.
func emailWithin(name, base string) (in, ok bool) {
	at := strings.LastIndexByte(name, '@')
	host := name[at+1:]
	if at < 1 || !plainHost(host) || !printable(name) || !printable(base) {
		return false, false
	}
	if i := strings.LastIndexByte(base, '@'); i >= 0 {
		return (i == 0 || name[:at] == base[:i]) && strings.EqualFold(host, base[i+1:]), true
	}
	return hostWithin(host, base, false), true
}

// hostWithin compares host names. Below says whether a base without a leading dot
// stands for what lies below it, too.
func hostWithin(host, base string, below bool) bool {
	host, base = lowerASCII(host), lowerASCII(base)
	switch {
	case base == "":
		return below
	case strings.HasPrefix(base, "."):
		return len(host) > len(base) && strings.HasSuffix(host, base)
	}
	return host == base || below && strings.HasSuffix(host, "."+base)
}

// plainHost reports whether a host's name is written in the one usual way, so
// that no two readers compare it differently.
func plainHost(s string) bool {
	return s != "" && printable(s) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

func uriWithin(name, base string) (in, ok bool) {
	u, err := url.Parse(name)
	if err != nil || u.Opaque != "" || u.User != nil || !plainHost(u.Hostname()) || !printable(name) {
		return false, false
	}
	_, rest, _ := strings.Cut(name, "://")
	rest, found := strings.CutPrefix(rest, u.Hostname())
	if !found || rest != "" && rest[0] != ':' && rest[0] != '/' {
		return false, false // others could take more of it for the host
	}
	return hostWithin(u.Hostname(), base, false), true
}

// addressWithin compares an address with one that its mask follows.
func addressWithin(name, base []byte) (in, ok bool) {
	if len(name) != 4 && len(name) != 16 || len(base) != 8 && len(base) != 32 {
		return false, false
	}
	if len(base) != 2*len(name) {
		return false, true
	}
	for i := range name {
		if (name[i]^base[i])&base[len(name)+i] != 0 {
			return false, true
		}
	}
	return true, true
}

// directoryWithin compares distinguished names: the base's RDNs come first in
// the name.
func directoryWithin(name, base []byte) (in, ok bool) {
	n, okName := canonical(name)
	b, okBase := canonical(base)
	if !okName || !okBase {
		return false, false
	}
	return len(b) <= len(n) && slices.Equal(n[:len(b)], b), true
}

// canonical returns one string for each RDN of a distinguished name, the same for names
// that differ in case, in spaces, in the type of their strings, or in the order
// within an RDN.
func canonical(der []byte) (rdns []string, ok bool) {
	in := cryptobyte.String(der)
	var name cryptobyte.String
	if !in.ReadASN1(&name, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, false
	}
	for !name.Empty() {
		var set cryptobyte.String
		if !name.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, false
		}
		var parts []string
		for !set.Empty() {
			part, ok := canonicalAttribute(&set)
			if !ok {
				return nil, false
			}
			parts = append(parts, part)
		}
		slices.Sort(parts)
		rdns = append(rdns, strings.Join(parts, "\x00"))
	}
	return rdns, true
}

func canonicalAttribute(set *cryptobyte.String) (string, bool) {
	var attribute, kind, value cryptobyte.String
	var tag cbasn1.Tag
	if !set.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1(&kind, cbasn1.OBJECT_IDENTIFIER) ||
		!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
		return "", false
	}
	text, isText, ok := decodeText(tag, value)
	if !isText {
		text = string([]byte{byte(tag)}) + string(value)
	} else {
		text = "s" + canonicalText(text)
	}
	// Lengths keep two attributes from looking like one.
	return string(binary.AppendUvarint(nil, uint64(len(kind)))) + string(kind) +
		string(binary.AppendUvarint(nil, uint64(len(text)))) + text, ok
}

// canonicalText takes away spaces at the ends, makes others one, and lowers
// ASCII letters.
func canonicalText(s string) string {
	space := func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }
	return lowerASCII(strings.Join(strings.FieldsFunc(s, space), " "))
}

// decodeText reads the types of strings whose type does not matter.
func decodeText(tag cbasn1.Tag, value []byte) (s string, isText, ok bool) {
	switch tag {
	case cbasn1.UTF8String, cbasn1.PrintableString, cbasn1.IA5String, cbasn1.Tag(26): // VisibleString
		return string(value), true, true
	case cbasn1.T61String:
		var b strings.Builder
		for _, c := range value {
			b.WriteRune(rune(c)) // as Latin 1
		}
		return b.String(), true, true
	case cbasn1.Tag(asn1.TagBMPString):
		if len(value)%2 != 0 {
			return "", true, false
		}
		units := make([]uint16, 0, len(value)/2)
		for ; len(value) > 0; value = value[2:] {
			units = append(units, binary.BigEndian.Uint16(value))
		}
		return string(utf16.Decode(units)), true, true
	case cbasn1.Tag(28): // UniversalString
		if len(value)%4 != 0 {
			return "", true, false
		}
		var b strings.Builder
		for ; len(value) > 0; value = value[4:] {
			b.WriteRune(rune(binary.BigEndian.Uint32(value)))
		}
		return b.String(), true, true
	}
	return "", false, true
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
