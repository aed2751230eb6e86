package portal

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// maxNames is how many names one certificate may carry.
const maxNames = 100

// ParseName returns a DNS name or IP address as it stands in a certificate:
// lower-case ASCII, no final dot; a wildcard only as the whole leftmost label,
// and never right above a public suffix (RFC 6125, 7.2).
func ParseName(s string) (string, error) {
	s = strings.TrimSpace(s)
	bad := func(why string) (string, error) {
		return "", postern.Errorf(postern.Invalid, "%s: %s.", printable(s), why)
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return bad("not an address that a server can have")
		}
		return ip.Unmap().String(), nil
	}
	if !utf8.ValidString(s) {
		return bad("not a host name")
	}
	if len(s) > 253 {
		return bad("longer than 253 characters")
	}
	base, wild := strings.CutPrefix(strings.TrimSuffix(s, "."), "*.")
	if strings.Contains(base, "*") {
		return bad("a wildcard can only be the whole first label, as in *.example.com")
	}
	base, err := idna.Lookup.ToASCII(base)
	if err != nil || !postern.ValidHostName(base) {
		return bad("not a host name")
	}
	if !wild {
		return base, nil
	}
	if suffix, icann := publicsuffix.PublicSuffix(base); suffix == base && (icann || !strings.Contains(base, ".")) {
		return bad("a wildcard over a whole public domain")
	}
	return "*." + base, nil
}

// ParseNames reads names separated by spaces, commas or line ends, without
// repetition, in the order given.
func ParseNames(s string) ([]string, error) {
	var names []string
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || r <= ' ' }) {
		n, err := ParseName(f)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
		if len(names) > maxNames {
			return nil, postern.Errorf(postern.Invalid, "More than %d names.", maxNames)
		}
	}
	if len(names) == 0 {
		return nil, postern.Errorf(postern.Invalid, "Give at least one name, like www.example.com.")
	}
	return names, nil
}

// printable returns s for use in a sentence on a page: shortened, and without
// control characters and those that change the direction of text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// maxLabel is how many characters the name of a device or key may have.
const maxLabel = 40

// labelIn returns the name of a device or key from a form; "" if there is none.
func labelIn(r *request) (string, error) {
	label := strings.Join(strings.Fields(r.PostForm.Get("label")), " ")
	switch {
	case utf8.RuneCountInString(label) > maxLabel:
		return "", postern.Errorf(postern.Invalid, "A name has at most %d characters.", maxLabel)
	case strings.ContainsFunc(label, unprintable):
		return "", postern.Errorf(postern.Invalid, "A name has letters, digits and other visible characters.")
	}
	return label, nil
}

// unprintable reports whether a rune is invisible or is not valid UTF-8.
func unprintable(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

// A Pattern is a set of names that an administrator allows: one name exactly,
// everything below a suffix (".internal"), or a network in CIDR form.
type Pattern struct {
	name    string
	suffix  string // with its leading dot
	network netip.Prefix
}

// ParsePattern reads www.internal, *.internal (or .internal: any depth,
// wildcards included), 10.1.2.3 or 10.1.0.0/16.
func ParsePattern(s string) (Pattern, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if p, err := netip.ParsePrefix(s); err == nil {
		return Pattern{network: p.Masked()}, nil
	}
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(s, "*"), "."); ok {
		if !postern.ValidHostName(rest) {
			return Pattern{}, postern.Errorf(postern.Invalid, "%s is not a pattern of names.",
				printable(s)).WithHint("write *.internal, www.internal or 10.0.0.0/8")
		}
		if suffix, icann := publicsuffix.PublicSuffix(rest); icann && suffix == rest {
			return Pattern{}, postern.Errorf(postern.Invalid, "%s would allow a whole public domain.", printable(s))
		}
		return Pattern{suffix: "." + rest}, nil
	}
	n, err := ParseName(s)
	return Pattern{name: n}, err
}

// String returns the pattern as ParsePattern reads it.
func (p Pattern) String() string {
	switch {
	case p.network.IsValid():
		return p.network.String()
	case p.suffix != "":
		return "*" + p.suffix
	}
	return p.name
}

// Match reports whether the pattern allows a name that ParseName has returned.
func (p Pattern) Match(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return p.network.IsValid() && p.network.Contains(ip) || p.name == name
	}
	if p.suffix != "" {
		return strings.HasSuffix(strings.TrimPrefix(name, "*"), p.suffix)
	}
	return p.name != "" && p.name == name
}
