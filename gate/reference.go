package gate

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
)

// Term is something that a rule may say: a variable, a field of one, or a function.
type Term struct {
	Name string // "cert", "cert.serial", "within"
	Type string // as CEL writes it; of a function, its result
	Doc  string
	Uses []string // of a function: how it is called
}

// Reference is what rules may say beyond CEL itself.
type Reference struct {
	Variables []Term
	Types     []TermType
	Functions []Term
}

// TermType is the type of a variable or field that has fields of its own.
type TermType struct {
	Name   string // "Certificate"
	Doc    string
	Fields []Term
}

// Rules returns what rules may say, from the environment that they are compiled
// in. The reference and the manual page are made from it.
func Rules() (Reference, error) {
	env, err := ruleEnv()
	if err != nil {
		return Reference{}, err
	}
	var ref Reference
	for _, v := range env.Variables() {
		if doc, ok := variableDocs[v.Name()]; ok {
			ref.Variables = append(ref.Variables, Term{Name: v.Name(), Type: typeName(v.Type()), Doc: doc})
		}
	}
	for name, fields := range ruleFields() {
		t := TermType{Name: strings.TrimPrefix(name, "postern."), Doc: fieldDocs[name]}
		for field, f := range fields {
			t.Fields = append(t.Fields, Term{Name: field, Type: typeName(f.Type), Doc: fieldDocs[name+"."+field]})
		}
		slices.SortFunc(t.Fields, byName)
		ref.Types = append(ref.Types, t)
	}
	slices.SortFunc(ref.Types, func(a, b TermType) int { return strings.Compare(a.Name, b.Name) })
	for name, f := range env.Functions() {
		if doc, ok := functionDocs[name]; ok {
			doc.Name, doc.Type = name, typeName(f.OverloadDecls()[0].ResultType())
			ref.Functions = append(ref.Functions, doc)
		}
	}
	slices.SortFunc(ref.Variables, byName)
	slices.SortFunc(ref.Functions, byName)
	return ref, nil
}

func byName(a, b Term) int { return strings.Compare(a.Name, b.Name) }

func typeName(t *cel.Type) string {
	return strings.NewReplacer("postern.", "", "google.protobuf.Timestamp", "timestamp").Replace(t.String())
}

var variableDocs = map[string]string{
	"cert":    "the client's certificate",
	"issuer":  "the certificate of the CA that issued it",
	"chain":   "all certificates, from the client's to that of the trusted CA",
	"person":  "the person whose certificate it is",
	"request": "the request",
	"tls":     "the connection",
	"address": "the client's IP address; a rule that reads it does not hold where there is none",
	"time":    "now",
}

var functionDocs = map[string]Term{
	"within": {
		Doc:  "whether an address is in a network, or in one of several",
		Uses: []string{`address.within("192.0.2.0/24")`, `address.within(["192.0.2.0/24", "2001:db8::/32"])`},
	},
	"lowerAscii": {
		Doc:  "the text with the letters A to Z in lower case",
		Uses: []string{`cert.subject.cn.lowerAscii() == "alice"`},
	},
	"upperAscii": {
		Doc:  "the text with the letters a to z in upper case",
		Uses: []string{`cert.serial.upperAscii() == "2A"`},
	},
	"extension": {
		Doc:  "the text values of the extension with that OID",
		Uses: []string{`cert.extension("1.2.3.4").exists(v, v == "staff")`},
	},
}

var fieldDocs = map[string]string{
	"postern.Certificate":            "A certificate.",
	"postern.Certificate.subject":    "the subject",
	"postern.Certificate.issuer":     "the issuer's name",
	"postern.Certificate.san":        "the subject's alternative names",
	"postern.Certificate.serial":     "the serial number, lower-case hex without leading zeros",
	"postern.Certificate.version":    "1 to 3",
	"postern.Certificate.not_before": "from when it is valid",
	"postern.Certificate.not_after":  "until when it is valid",
	"postern.Certificate.pem": "the certificate in PEM on one line, with a space where a line ends, " +
		"as Apache writes it in a header",
	"postern.Certificate.fingerprint":         "SHA-256 of the certificate, hex",
	"postern.Certificate.spki":                "SHA-256 of the public key (SubjectPublicKeyInfo), hex",
	"postern.Certificate.key_algorithm":       `"ECDSA", "RSA" or "Ed25519"`,
	"postern.Certificate.signature_algorithm": `as "ECDSA-SHA256"`,
	"postern.Certificate.key_usage":           `RFC 5280's names, as "digitalSignature"`,
	"postern.Certificate.ext_key_usage":       `RFC 5280's names, as "clientAuth", or the OID`,
	"postern.Certificate.attested": "whether the CA that issued it has proof that the key was made in a YubiKey, " +
		"which it cannot leave",
	"postern.Certificate.pin_policy": `when it asks for its PIN: "never", "once", "always"; ` +
		`for PIN or fingerprint: "match-once", "match-always"; "" if not attested`,
	"postern.Certificate.touch_policy":  `when it asks for a touch: "never", "always", "cached", or "" if not attested`,
	"postern.Certificate.device_serial": `the serial number of the YubiKey, in decimal digits, or ""`,
	"postern.Name": "A distinguished name. An attribute is the list of all its values, " +
		"in the certificate's order.",
	"postern.Name.dn": "the whole name, as RFC 4514 writes it",
	"postern.Name.oneline": "the whole name as /C=DE/O=Example/CN=Alice, which OpenSSL once wrote; none if a " +
		"value has a slash in it",
	"postern.Name.c":            "country",
	"postern.Name.st":           "state or province",
	"postern.Name.l":            "locality",
	"postern.Name.o":            "organisation",
	"postern.Name.ou":           "organisational unit",
	"postern.Name.cn":           "common name",
	"postern.Name.title":        "title",
	"postern.Name.initials":     "initials",
	"postern.Name.dn_qualifier": "qualifier of the name",
	"postern.Name.gn":           "given name",
	"postern.Name.sn":           "surname",
	"postern.Name.description":  "description",
	"postern.Name.uid":          "user ID",
	"postern.Name.email":        "e-mail address",
	"postern.Name.dc":           "domain component",
	"postern.Name.serial":       "serialNumber, which is not the certificate's",
	"postern.Name.street":       "street",
	"postern.Name.postal_code":  "postal code",
	"postern.AltNames":          "The subject's alternative names.",
	"postern.AltNames.email":    "e-mail addresses",
	"postern.AltNames.dns":      "host names",
	"postern.AltNames.uri":      "URIs",
	"postern.AltNames.ip":       "IP addresses",
	"postern.Person": "A person. Another CA's certificate is that of the person whose e-mail address it " +
		"names, if it names one alone.",
	"postern.Person.known":     "whether there is a person; the other fields are empty where there is none",
	"postern.Person.name":      "the name in the state",
	"postern.Person.email":     "the e-mail address",
	"postern.Person.full_name": "the full name",
	"postern.Person.groups":    "the groups that the person is in",
	"postern.Request":          "A request.",
	"postern.Request.method":   `"GET" and the like`,
	"postern.Request.path": "the decoded path; where servers may read it in several ways, the rule must hold " +
		"for each",
	"postern.Request.query":   "the query, undecoded",
	"postern.Request.uri":     "path and query as they were sent",
	"postern.Request.host":    "the host as the client sent it, with its port if it sent one",
	"postern.Request.proto":   `"HTTP/1.1" or "HTTP/2.0"`,
	"postern.Request.headers": "from the lower-case name of a header to the list of its values",
	"postern.TLS":             "A TLS connection.",
	"postern.TLS.version":     `"TLSv1.2" or "TLSv1.3"`,
	"postern.TLS.cipher":      "the cipher suite",
	"postern.TLS.server_name": "the name that the client asked for (SNI)",
	"postern.TLS.resumed":     "whether the session was resumed",
}
