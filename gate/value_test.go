package gate

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
)

// TestValuesAsAHeaderCarriesThem evaluates expressions over one certificate.
func TestValuesAsAHeaderCarriesThem(t *testing.T) {
	name := func(oid asn1.ObjectIdentifier, value string) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}}
	}
	der, err := asn1.Marshal(pkix.RDNSequence{
		name(asn1.ObjectIdentifier{2, 5, 4, 6}, "DE"), name(asn1.ObjectIdentifier{2, 5, 4, 10}, `Acme, "Söhne"`),
		name(asn1.ObjectIdentifier{2, 5, 4, 11}, "a"), name(asn1.ObjectIdentifier{2, 5, 4, 11}, "b"),
		name(asn1.ObjectIdentifier{2, 5, 4, 3}, "Jörg\r\nX: y\\0A"),
	})
	if err != nil {
		t.Fatal(err)
	}
	subject, err := ReadName(der)
	if err != nil {
		t.Fatal(err)
	}
	slash, err := asn1.Marshal(pkix.RDNSequence{name(asn1.ObjectIdentifier{2, 5, 4, 3}, "x/CN=admin")})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ReadName(slash)
	if err != nil {
		t.Fatal(err)
	}
	cert := &Certificate{
		Subject: subject, Issuer: issuer, Serial: "2a", Version: 3,
		SAN: AltNames{Email: []string{"a@example.com"}}, KeyUsage: []string{"digitalSignature", "keyAgreement"},
	}
	s := &Subject{
		Verified: &Verified{Facts: []*Certificate{cert, cert}}, Request: &Request{Method: "GET"},
		Holder: &Holder{postern.Person{Name: "joerg", Groups: []string{"staff", "audit"}}},
	}
	for source, want := range map[string]string{
		`"SUCCESS"`:         "SUCCESS",
		`cert.serial`:       "2a",
		`cert.version`:      "3",
		`cert.version == 3`: "true",
		`cert.subject.cn`:   `Jörg\0D\0AX: y\\0A`,
		`cert.subject.dn`:   `CN=Jörg\0D\0AX: y\\0A,OU=b,OU=a,O=Acme\, \"Söhne\",C=DE`,
		`cert.subject.oneline.startsWith("/C=DE/O=Acme, \"S\\xC3\\xB6hne\"/OU=a/OU=b/CN=J")`: "true",
		`cert.issuer.oneline`:               "", // it could pass for another name
		`cert.subject.ou`:                   "", // two values, where one is needed
		`cert.subject.ou[1]`:                "b",
		`cert.subject.st`:                   "",
		`cert.san.email`:                    "a@example.com",
		`cert.key_usage`:                    "digitalSignature,keyAgreement",
		`cert.subject.ou.map(u, u + ",x")`:  "", // two lists could be written alike
		`person.groups`:                     "staff,audit",
		`person.name + " " + cert.serial`:   "joerg 2a",
		`cert.serial + ":" + address`:       "", // there is no address
		`string(cert.subject.dn) + "/x"`:    `CN=Jörg\\0D\\0AX: y\\\\0A,OU=b,OU=a,O=Acme\\, \\"Söhne\\",C=DE/x`,
		`cert.serial + request.method`:      "2aGET",
		`"staff" in person.groups ? "y":""`: "y",
	} {
		v, err := CompileValue(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got := v.Text(s); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
	for _, source := range []string{
		`request.path`, `cert`, `cert.subject`, `chain`, `cert.subject.nothing`, `time`,
		`{"a": cert.serial}`, `cert.serial +`,
	} {
		if v, err := CompileValue(source); err == nil {
			t.Errorf("%s is accepted: %q", source, v.Text(s))
		}
	}
}

// FuzzHeaderTexts writes two texts as headers carry them: neither can end the header's
// line, and they are alike only if the texts are.
func FuzzHeaderTexts(f *testing.F) {
	for _, s := range []string{"Jörg", "a\r\nX: y", `a\0Db`, "a\x0db", "\xff", "\\FF", "\u0085", ""} {
		f.Add(s, s+"x")
		f.Add(s, `\`+s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := escapeHeader(a, false), escapeHeader(b, false)
		if x == y && a != b {
			t.Errorf("%q and %q are both %q", a, b, x)
		}
		for _, s := range []string{x, escapeHeader(a, true)} {
			if strings.ContainsFunc(s, unicode.IsControl) || !utf8.ValidString(s) {
				t.Errorf("%q becomes %q", a, s)
			}
		}
	})
}

// FuzzValues compiles expressions that may be anything, and evaluates those that are
// values.
func FuzzValues(f *testing.F) {
	for _, s := range []string{
		`cert.subject.cn`, `person.groups`, `cert.subject.dn + address`,
		`cert.san.email.filter(e, e.endsWith("x"))`, `cert.subject.oneline`,
	} {
		f.Add(s)
	}
	cert := &Certificate{Serial: "2a"}
	s := &Subject{
		Verified: &Verified{Facts: []*Certificate{cert, cert}}, Request: &Request{Method: "GET"},
		Holder: &Holder{},
	}
	f.Fuzz(func(t *testing.T, source string) {
		v, err := CompileValue(source)
		if err != nil {
			return
		}
		if text := v.Text(s); strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q is %q", source, text)
		}
	})
}
