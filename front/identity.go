package front

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
	"go.uber.org/zap"
)

// identity is the identity of a person who signed in, for the application. It is made
// once for a connection.
type identity struct {
	person, email, serial string
	verified              *gate.Verified
	headers               [][2]any // canonical name, []string
	fields                []zap.Field
	links                 []postern.Link
}

// The headers that a proxied application is given. Client-Cert and
// Client-Cert-Chain are those of RFC 9440.
const (
	headerCert   = "Client-Cert"
	headerChain  = "Client-Cert-Chain"
	headerPerson = "Postern-Person"
	headerEmail  = "Postern-Email"
	headerGroups = "Postern-Groups"
	headerSerial = "Postern-Serial"
)

func newIdentity(v *gate.Verified, h *gate.Holder) *identity {
	leaf := v.Leaf()
	i := &identity{person: h.Name, email: h.Email, serial: leaf.Serial, verified: v}
	if emails := leaf.Emails(); i.email == "" && len(emails) == 1 {
		i.email = emails[0]
	}
	i.header(headerCert, byteSequence(v.Chain[0].Raw))
	var chain []string
	for _, c := range v.Chain[1:] {
		chain = append(chain, byteSequence(c.Raw))
	}
	i.header(headerChain, strings.Join(chain, ", "))
	i.header(headerPerson, i.person)
	i.header(headerEmail, i.email)
	i.header(headerGroups, strings.Join(h.Groups, ","))
	i.header(headerSerial, i.serial)
	i.fields = []zap.Field{zap.String(postern.LogPerson, i.name()), zap.String(postern.LogSerial, i.serial)}
	if v.Own {
		i.links = []postern.Link{{Kind: string(postern.X509Certificate), ID: i.serial}}
	}
	return i
}

// name is the person's name, or else what the certificate calls them.
func (i *identity) name() string {
	if i.person != "" {
		return i.person
	}
	return i.email
}

func (i *identity) header(name, value string) {
	if value != "" {
		i.headers = append(i.headers, [2]any{name, []string{value}})
	}
}

func byteSequence(der []byte) string {
	return ":" + base64.StdEncoding.EncodeToString(der) + ":"
}

// setHeaders sets the identity's headers, for a proxied application.
func (i *identity) setHeaders(h http.Header) {
	for _, kv := range i.headers {
		h[kv[0].(string)] = kv[1].([]string)[:1:1]
	}
}

// environment returns the variables that Apache's mod_ssl gives to a CGI
// program about the client, by the names that its documentation lists.
func (i *identity) environment(r *http.Request) map[string]string {
	leaf := i.verified.Leaf()
	env := map[string]string{
		"HTTPS":                "on",
		"SSL_CLIENT_VERIFY":    "SUCCESS",
		"SSL_CLIENT_M_VERSION": fmt.Sprint(leaf.Version),
		"SSL_CLIENT_M_SERIAL":  strings.ToUpper(evenHex(leaf.Serial)),
		"SSL_CLIENT_S_DN":      leaf.Subject.DN,
		"SSL_CLIENT_I_DN":      leaf.Issuer.DN,
		"SSL_CLIENT_V_START":   opensslTime(leaf.NotBefore),
		"SSL_CLIENT_V_END":     opensslTime(leaf.NotAfter),
		"SSL_CLIENT_V_REMAIN":  fmt.Sprint(int(time.Until(leaf.NotAfter).Hours() / 24)),
		"SSL_CLIENT_A_KEY":     apacheKeyAlgorithm(leaf.KeyAlgorithm),
		"SSL_CLIENT_A_SIG":     apacheSignature(leaf.SignatureAlgorithm),
		"SSL_CLIENT_CERT":      string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.X509.Raw})),
		"SSL_CLIENT_CERT_RFC4523_CEA": fmt.Sprintf("{ serialNumber %s, issuer rdnSequence:%q }",
			leaf.X509.SerialNumber, leaf.Issuer.DN),
		"REMOTE_USER":    i.name(),
		"POSTERN_PERSON": i.person,
		"POSTERN_EMAIL":  i.email,
	}
	dnVariables(env, "SSL_CLIENT_S_DN_", leaf.Subject)
	dnVariables(env, "SSL_CLIENT_I_DN_", leaf.Issuer)
	indexed(env, "SSL_CLIENT_SAN_Email_", leaf.SAN.Email)
	indexed(env, "SSL_CLIENT_SAN_DNS_", leaf.SAN.DNS)
	for n, c := range i.verified.Chain[1:] {
		env[fmt.Sprintf("SSL_CLIENT_CERT_CHAIN_%d", n)] = string(pem.EncodeToMemory(&pem.Block{
			Type:  "CERTIFICATE",
			Bytes: c.Raw,
		}))
	}
	if r.TLS != nil {
		env["SSL_TLS_SNI"] = r.TLS.ServerName
	}
	return env
}

var dnNames = map[string]string{
	"C": "c", "ST": "st", "L": "l", "O": "o", "OU": "ou", "CN": "cn", "T": "title", "I": "initials",
	"G": "gn", "S": "sn", "D": "description", "UID": "uid", "Email": "email",
}

// dnVariables sets one variable for each attribute as Apache does: the first
// occurrence under the plain name, and each again under its index when there
// is more than one. An application that only looks at one value sees Apache's.
func dnVariables(env map[string]string, prefix string, n gate.Name) {
	for name, field := range dnNames {
		values := n.Values(field)
		if len(values) == 0 {
			continue
		}
		env[prefix+name] = values[0]
		for i := 1; i < len(values); i++ {
			env[fmt.Sprintf("%s%s_%d", prefix, name, i)] = values[i]
		}
	}
}

func indexed(env map[string]string, prefix string, values []string) {
	for i, v := range values {
		env[fmt.Sprintf("%s%d", prefix, i)] = v
	}
}

func evenHex(s string) string {
	if len(s)%2 == 1 {
		return "0" + s
	}
	return s
}

func opensslTime(t time.Time) string { return t.UTC().Format("Jan _2 15:04:05 2006 GMT") }

func apacheKeyAlgorithm(a string) string {
	switch a {
	case "RSA":
		return "rsaEncryption"
	case "ECDSA":
		return "id-ecPublicKey"
	}
	return a
}

func apacheSignature(a string) string {
	algorithm, hash, ok := strings.Cut(a, "-")
	switch {
	case ok && algorithm == "ECDSA":
		return "ecdsa-with-" + hash
	case ok && strings.HasSuffix(a, "-RSA"):
		return strings.ToLower(algorithm) + "WithRSAEncryption"
	}
	return a
}

// forbiddenPrefixes are the names under which applications take a client's
// identity, folded: they are removed from each request.
var forbiddenPrefixes = []string{
	"ssl-client", "ssl-server", "ssl-tls", "x-ssl", "client-cert", "x-client-cert", "x-client-verify", "x-client-dn",
	"x-forwarded-client-cert", "x-forwarded-tls-client", "x-tls-client", "postern-", "x-postern-", "remote-user",
	"x-remote-user", "redirect-ssl",
}

// strip removes what looks like an identity from a request that came from
// a client, whatever its case and whichever of "-", "_" and "." stands between
// the words.
func (e *Entry) strip(h http.Header) {
	for name := range h {
		if e.forged(name) {
			delete(h, name)
		}
	}
	if values := h["Connection"]; len(values) > 0 {
		h["Connection"] = slices.DeleteFunc(values, e.namesIdentity)
	}
}

// forged reports whether only Postern sets a header of this name.
func (e *Entry) forged(name string) bool {
	return forged(name) || len(e.Headers) > 0 && slices.Contains(e.Headers, fold(name))
}

// pathPrefixes are the names under which some applications take another path
// than the request's, folded.
var pathPrefixes = []string{"x-original-ur", "x-rewrite-ur"}

// stripPaths removes what would give an application another path than the one that the
// guard has judged, or another protocol than WebSocket's on the same connection. In such
// a protocol, as in h2c, a client could send requests that no guard judges.
func stripPaths(h http.Header) {
	if len(h["Upgrade"]) > 0 && !strings.EqualFold(strings.Join(h["Upgrade"], ","), "websocket") {
		delete(h, "Upgrade")
	}
	for name := range h {
		if len(name) > 10 && name[0]|0x20 == 'x' && (hasFoldedPrefix(name, pathPrefixes[0]) ||
			hasFoldedPrefix(name, pathPrefixes[1])) {
			delete(h, name)
		}
	}
}

// namesIdentity reports whether a Connection header would make the next proxy
// drop the identity that we set.
func (e *Entry) namesIdentity(value string) bool {
	for token := range strings.SplitSeq(value, ",") {
		if e.forged(strings.TrimSpace(token)) {
			return true
		}
	}
	return false
}

func forged(name string) bool {
	if len(name) < 8 {
		return false
	}
	switch name[0] | 0x20 {
	case 's', 'x', 'c', 'p', 'r':
	default:
		return false
	}
	for _, p := range forbiddenPrefixes {
		if hasFoldedPrefix(name, p) {
			return true
		}
	}
	return false
}

func hasFoldedPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := 0; i < len(prefix); i++ {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case c == '_' || c == '.':
			c = '-'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}
