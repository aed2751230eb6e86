package pkcs11

import (
	"encoding/hex"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
)

// URI names a token and perhaps one key on it (RFC 7512).
type URI struct {
	Module string // module-path; empty: whichever of p11-kit's modules has the token
	PIN    string // pin-source: the file with the PIN; empty: none is given
	Object string // the key's label; may be empty
	ID     []byte // CKA_ID of the key; may be empty

	token map[string]string // what the token must be, by attribute
}

// tokenAttributes are those of RFC 7512 section 2.3 that choose a token, in the
// order in which String writes them.
var tokenAttributes = []string{"token", "manufacturer", "model", "serial"}

// Scheme begins every URI.
const Scheme = "pkcs11:"

// Parse reads a URI. It takes each attribute before the question mark as well as
// after it, as others do. A PIN stands in a file, never in the URI.
func Parse(s string) (URI, error) {
	u := URI{token: map[string]string{}}
	rest, ok := strings.CutPrefix(s, Scheme)
	if !ok || len(s) > 2048 {
		return u, postern.Errorf(postern.Invalid, "not a PKCS#11 URI").WithHint("as in %s", exampleURI)
	}
	seen := map[string]bool{}
	for part := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r == ';' || r == '?' || r == '&' }) {
		name, raw, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(raw)
		if name == "pin-value" { // before anything that shows it
			return u, postern.Errorf(postern.Invalid,
				"the URI holds a PIN, which others on this host can see now: change it").
				WithHint("write the PIN to a file of mode 0600 and name it: pin-source=/path")
		}
		if err != nil || value == "" || seen[name] || name != "id" && strings.ContainsRune(value, 0) {
			return u, postern.Errorf(postern.Invalid, "PKCS#11 URI: %s is not given once with a value", name)
		}
		seen[name] = true
		if err := u.set(name, value); err != nil {
			return u, err
		}
	}
	return u, nil
}

const exampleURI = "'pkcs11:token=postern?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/postern/pin'"

func (u *URI) set(name, value string) error {
	switch name {
	case "module-path":
		u.Module = value
	case "pin-source":
		if u.PIN = strings.TrimPrefix(value, "file:"); !filepath.IsAbs(u.PIN) {
			return postern.Errorf(postern.Invalid, "PKCS#11 URI: pin-source is not the absolute path of a file")
		}
	case "object":
		u.Object = value
	case "id":
		u.ID = []byte(value)
	case "type":
		if value != "private" {
			return postern.Errorf(postern.Invalid, "PKCS#11 URI: a CA's key is of type private, not %q", value)
		}
	default:
		if !slices.Contains(tokenAttributes, name) {
			return postern.Errorf(postern.Invalid, "PKCS#11 URI: unknown attribute %q", name).
				WithHint("known are %s, object, id, module-path and pin-source", strings.Join(tokenAttributes, ", "))
		}
		u.token[name] = value
	}
	return nil
}

// NamesKey reports whether the URI names one key.
func (u URI) NamesKey() bool { return u.Object != "" || len(u.ID) > 0 }

func (u URI) key() module.Key { return module.Key{Label: u.Object, ID: u.ID} }

// HSM returns the URI without its key: that of the PKCS#11 token alone.
func (u URI) HSM() URI {
	u.Object, u.ID = "", nil
	return u
}

// modulePath returns what dlopen(3) is given.
func (u URI) modulePath() string {
	if u.Module == "" {
		return "p11-kit-proxy.so" // offers the tokens of all modules that p11-kit knows
	}
	return u.Module
}

// String returns the URI as RFC 7512 section 2.3 has it.
func (u URI) String() string {
	var path, query []string
	for _, name := range tokenAttributes {
		if value := u.token[name]; value != "" {
			path = append(path, name+"="+escape(value))
		}
	}
	if u.Object != "" {
		path = append(path, "object="+escape(u.Object))
	}
	if len(u.ID) > 0 {
		path = append(path, "id="+escapeAll(u.ID))
	}
	if u.Module != "" {
		query = append(query, "module-path="+escape(u.Module))
	}
	if u.PIN != "" {
		query = append(query, "pin-source="+escape(u.PIN))
	}
	s := Scheme + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// escape leaves letters, digits, and a few signs that RFC 7512 allows everywhere
// that they are used here.
func escape(s string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s))
}

func escapeAll(b []byte) string {
	var out strings.Builder
	for _, c := range b {
		out.WriteByte('%')
		out.WriteString(hex.EncodeToString([]byte{c}))
	}
	return out.String()
}
