package gate

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// readConstraints returns the name constraints of a CA, or nil if it has none.
// It is not ok if they cannot be read, or say what RFC 5280 forbids.
func readConstraints(ca *x509.Certificate) (c *constraints, ok bool) {
	raw, found := findExtension(ca, oidConstraints)
	if !found {
		return nil, true
	}
	in := cryptobyte.String(raw)
	var body, permitted, excluded cryptobyte.String
	var hasPermitted, hasExcluded bool
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() ||
		!body.ReadOptionalASN1(&permitted, &hasPermitted, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!body.ReadOptionalASN1(&excluded, &hasExcluded, cbasn1.Tag(1).ContextSpecific().Constructed()) ||
		!body.Empty() {
		return nil, false
	}
	c = new(constraints)
	if c.permitted, ok = readSubtrees(permitted); !ok {
		return nil, false
	}
	c.excluded, ok = readSubtrees(excluded)
	return c, ok
}

// readSubtrees reads GeneralSubtrees. A minimum or maximum, which RFC 5280 does
// not allow, is refused.
func readSubtrees(in cryptobyte.String) (bases []generalName, ok bool) {
	for !in.Empty() {
		var subtree cryptobyte.String
		if !in.ReadASN1(&subtree, cbasn1.SEQUENCE) {
			return nil, false
		}
		base, ok := readGeneralName(&subtree)
		if !ok || !subtree.Empty() {
			return nil, false
		}
		bases = append(bases, base)
	}
	return bases, true
}

func readGeneralName(in *cryptobyte.String) (n generalName, ok bool) {
	var value cryptobyte.String
	var tag cbasn1.Tag
	if !in.ReadAnyASN1(&value, &tag) || tag&0xc0 != 0x80 {
		return n, false
	}
	return generalName{kind: int(tag & 0x1f), value: value}, true
}

func findExtension(c *x509.Certificate, id asn1.ObjectIdentifier) ([]byte, bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Value, true
		}
	}
	return nil, false
}

// namesOf returns every name in a certificate that a constraint concerns: the
// subject, its e-mail addresses, the alternative names, and for a client's
// certificate without a DNS name its common names that look like one. It is not ok if one of them cannot
// be read.
func namesOf(c *x509.Certificate, leaf bool) (names []generalName, ok bool) {
	rdns, ok := canonical(c.RawSubject)
	if !ok {
		return nil, false
	}
	if len(rdns) > 0 {
		names = append(names, generalName{nameDirectory, c.RawSubject})
	}
	hasDNS := false
	if raw, found := findExtension(c, oidAltNames); found {
		in := cryptobyte.String(raw)
		var all cryptobyte.String
		if !in.ReadASN1(&all, cbasn1.SEQUENCE) || !in.Empty() {
			return nil, false
		}
		for !all.Empty() {
			n, ok := readGeneralName(&all)
			if !ok {
				return nil, false
			}
			hasDNS = hasDNS || n.kind == nameDNS
			names = append(names, n)
		}
	}
	return subjectNames(c, names, leaf && !hasDNS)
}

var (
	idEmail      = string([]byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01})
	idCommonName = string([]byte{0x55, 0x04, 0x03})
)

// subjectNames adds the e-mail addresses of a subject and, if asked to, its
// common names that look like a host's.
func subjectNames(c *x509.Certificate, names []generalName, hosts bool) ([]generalName, bool) {
	in := cryptobyte.String(c.RawSubject)
	var subject cryptobyte.String
	if !in.ReadASN1(&subject, cbasn1.SEQUENCE) {
		return nil, false
	}
	for !subject.Empty() {
		var set cryptobyte.String
		if !subject.ReadASN1(&set, cbasn1.SET) {
			return nil, false
		}
		for !set.Empty() {
			var attribute, id, value cryptobyte.String
			var tag cbasn1.Tag
			if !set.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
				!attribute.ReadAnyASN1(&value, &tag) {
				return nil, false
			}
			switch {
			case string(id) == idEmail && tag != cbasn1.IA5String:
				return nil, false // RFC 5280 appendix A has no other type for it
			case string(id) == idEmail:
				names = append(names, generalName{nameEmail, value})
			case string(id) == idCommonName && hosts:
				if text, isText, ok := decodeText(tag, value); !ok || !isText {
					return nil, false
				} else if likeHost(text) {
					names = append(names, generalName{nameDNS, []byte(text)})
				}
			}
		}
	}
	return names, true
}

// likeHost reports whether a common name could be taken for a host's name.
func likeHost(s string) bool {
	s = strings.TrimRight(s, "\x00")
	return strings.Contains(s, ".") && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
			strings.ContainsRune("-_.:\x00", r))
	})
}
