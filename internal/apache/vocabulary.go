package apache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
)

// vocabulary says what Apache's variables are called in the gate's rules.
type vocabulary struct {
	dialect     dialect
	site        *site
	zone        string
	file        func(name string) (string, error)
	shown       shown    // what is known of the client's certificate
	oneline     bool     // DNs are written as OpenSSL once wrote them
	certificate bool     // the rule looks at a certificate
	changed     []string // what means something a little different here
}

// address is the client's address in the gate's words.
const address = "address"

// attributes are Apache's names of a DN's parts, in the gate's words.
var attributes = map[string]string{
	"C": "c", "ST": "st", "SP": "st", "L": "l", "O": "o", "OU": "ou", "CN": "cn", "T": "title", "I": "initials",
	"G": "gn", "S": "sn", "D": "description", "UID": "uid", "EMAIL": "email", "DC": "dc",
}

// variable writes one variable.
func (v *vocabulary) variable(name string) (value, error) {
	upper := strings.ToUpper(name)
	if kind, arg, ok := strings.Cut(name, ":"); ok {
		switch strings.ToUpper(kind) {
		case "HTTP", "REQ":
			return v.header(arg), nil
		case "SSL":
			return v.variable(arg)
		}
		return value{}, unmatched{"%{" + name + "} has no match here"}
	}
	if rest, ok := strings.CutPrefix(upper, "SSL_CLIENT_"); ok {
		v.certificate = true
		return v.client(name, rest)
	}
	if rest, ok := strings.CutPrefix(upper, "TIME_"); ok || upper == "TIME" {
		return v.time(rest)
	}
	switch upper {
	case "SSL_PROTOCOL":
		return value{cel: "tls.version"}, nil
	case "SSL_CIPHER":
		v.changed = append(v.changed, "ciphers of TLS 1.2 have other names here than OpenSSL's")
		return value{cel: "tls.cipher"}, nil
	case "SSL_CIPHER_USEKEYSIZE", "SSL_CIPHER_ALGKEYSIZE":
		return number(`(tls.cipher.contains("AES_128") ? 128 : 256)`), nil
	case "SSL_CIPHER_EXPORT":
		return literal("false"), nil
	case "SSL_SESSION_RESUMED":
		return value{cel: `(tls.resumed ? "Resumed" : "Initial")`}, nil
	case "SSL_TLS_SNI":
		return value{cel: "tls.server_name"}, nil
	case "HTTPS":
		if v.plain() {
			return literal("off"), nil
		}
		return literal("on"), nil
	case "REQUEST_SCHEME":
		if v.plain() {
			return literal("http"), nil
		}
		return literal("https"), nil
	case "THE_REQUEST":
		return value{cel: `(request.method + " " + request.uri + " " + request.proto)`}, nil
	case "IS_SUBREQ":
		return literal("false"), nil
	case "REMOTE_ADDR":
		return value{cel: address}, nil
	case "REQUEST_METHOD":
		return value{cel: "request.method"}, nil
	case "REQUEST_URI":
		return value{cel: "request.path"}, nil
	case "QUERY_STRING":
		return value{cel: "request.query"}, nil
	case "SERVER_PROTOCOL":
		return value{cel: "request.proto"}, nil
	case "HTTP_HOST":
		return value{cel: "request.host"}, nil
	case "SERVER_NAME":
		if v.site != nil && len(v.site.names) == 1 {
			return literal(v.site.names[0]), nil
		}
		return value{cel: "request.host"}, nil
	case "SERVER_PORT":
		if port := v.port(); port != "" {
			return literal(port), nil
		}
	case "DOCUMENT_ROOT":
		if v.site != nil {
			return literal(v.site.docroot), nil
		}
	}
	if h, ok := strings.CutPrefix(upper, "HTTP_"); ok {
		return v.header(strings.ReplaceAll(h, "_", "-")), nil
	}
	return value{}, unmatched{"%{" + name + "} has no match here"}
}

// plain reports whether the site is one without TLS.
func (v *vocabulary) plain() bool { return v.site != nil && !v.site.tls }

// port is the site's port, if it has but one.
func (v *vocabulary) port() string {
	switch {
	case v.site == nil || len(v.site.ports) > 1:
		return ""
	case len(v.site.ports) == 1:
		return v.site.ports[0]
	case v.site.tls:
		return "443"
	}
	return "80"
}

func literal(s string) value { return value{cel: quote(s), literal: s, known: true} }

// number is a value that is a whole number by its nature; Apache shows it with
// decimal digits.
func number(cel string) value { return value{cel: "string(" + cel + ")", number: cel} }

// header is a request header; several of one name have no one meaning.
func (v *vocabulary) header(name string) value {
	key := quote(strings.ToLower(name))
	return value{
		cel:    fmt.Sprintf(`(%[1]s in request.headers ? request.headers[%[1]s][0] : "")`, key),
		guards: []string{fmt.Sprintf(`(!(%[1]s in request.headers) || size(request.headers[%[1]s]) == 1)`, key)},
	}
}

// client is a variable that speaks of the client's certificate.
func (v *vocabulary) client(name, rest string) (value, error) {
	if v.shown == noneShown {
		if rest == "VERIFY" {
			return literal("NONE"), nil
		}
		return literal(""), nil
	}
	for _, dn := range []struct{ prefix, cel string }{{"S_DN", "cert.subject"}, {"I_DN", "cert.issuer"}} {
		part, ok := strings.CutPrefix(rest, dn.prefix)
		if !ok {
			continue
		}
		if part == "" || part == "_RAW" {
			if v.oneline {
				v.changed = append(v.changed, "a name with a slash in one of its values never matches")
				return value{cel: dn.cel + ".oneline"}, nil
			}
			v.changed = append(v.changed, "the whole name is compared as RFC 4514 writes it")
			return value{cel: dn.cel + ".dn"}, nil
		}
		part, index, indexed := strings.Cut(strings.TrimPrefix(part, "_"), "_")
		attr, known := attributes[part]
		if index == "RAW" {
			index, indexed = "", false
		}
		if known {
			return list(dn.cel+"."+attr, index, indexed)
		}
	}
	for prefix, cel := range map[string]string{"SAN_EMAIL_": "cert.san.email", "SAN_DNS_": "cert.san.dns"} {
		if index, ok := strings.CutPrefix(rest, prefix); ok {
			return list(cel, index, true)
		}
	}
	switch rest {
	case "VERIFY":
		return literal("SUCCESS"), nil
	case "M_SERIAL":
		return value{cel: "cert.serial.upperAscii()", serial: true}, nil
	case "M_VERSION":
		return number("cert.version"), nil
	case "V_REMAIN":
		return number("((cert.not_after - time).getHours() / 24)"), nil
	case "CERT":
		return value{cel: "cert.fingerprint", pem: true}, nil
	}
	return value{}, unmatched{"%{" + name + "} has no match here"}
}

// list is an attribute that may be there several times: the only one, or the
// one with an index.
func list(cel, index string, indexed bool) (value, error) {
	if !indexed {
		return value{cel: cel + "[0]", attr: cel, guards: []string{"size(" + cel + ") == 1"}}, nil
	}
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || n > 99 {
		return value{}, unmatched{"_" + index + " is no index"}
	}
	return value{cel: fmt.Sprintf(`(size(%[1]s) > %[2]d ? %[1]s[%[2]d] : "")`, cel, n)}, nil
}

// time is a part of the clock's reading in the server's time zone.
func (v *vocabulary) time(part string) (value, error) {
	zone := v.zone
	if zone == "" {
		zone = "UTC"
	}
	v.changed = append(v.changed, "times are compared as numbers, in the time zone "+zone)
	call := func(f, plus string) (value, error) {
		return number("(time." + f + "(" + quote(zone) + ")" + plus + ")"), nil
	}
	switch part {
	case "YEAR":
		return call("getFullYear", "")
	case "MON":
		return call("getMonth", " + 1")
	case "DAY":
		return call("getDayOfMonth", " + 1")
	case "HOUR":
		return call("getHours", "")
	case "MIN":
		return call("getMinutes", "")
	case "SEC":
		return call("getSeconds", "")
	case "WDAY":
		return call("getDayOfWeek", "")
	}
	return value{}, unmatched{"%{TIME_" + part + "} has no match here"}
}

// comparable returns the literal in the form in which the other side is
// compared: a serial number without leading zeros, a certificate's fingerprint.
func comparable(x, lit value) (value, error) {
	switch {
	case x.serial:
		return value{known: true, cel: quote(strings.TrimLeft(strings.ToLower(lit.literal), "0"))}, nil
	case x.pem:
		block, _ := pem.Decode([]byte(lit.literal))
		if block == nil || block.Type != "CERTIFICATE" {
			return value{}, unmatched{"SSL_CLIENT_CERT is compared with what is no certificate"}
		}
		sum := sha256.Sum256(block.Bytes)
		return value{known: true, cel: quote(hex.EncodeToString(sum[:]))}, nil
	}
	return lit, nil
}

// inNet writes a test whether the client's address is in a network.
func inNet(net string) string { return address + ".within(" + quote(net) + ")" }
