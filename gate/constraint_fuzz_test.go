package gate

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
)

// FuzzConstraints reads constraints, a subject and alternative names of any
// bytes. What passes under constraints passes without their excluded part, too.
func FuzzConstraints(f *testing.F) {
	f.Add([]byte("\x30\x11\xa0\x0f\x30\x0d\x81\x0bzoo.example"), []byte("\x30\x00"),
		[]byte("\x30\x0f\x81\x0da@zoo.example"))
	f.Add([]byte("\x30\x15\xa1\x13\x30\x11\xa4\x0f\x30\x0d\x31\x0b\x30\x09\x06\x03U\x04\x0a\x0c\x02Zo"),
		[]byte("\x30\x0d\x31\x0b\x30\x09\x06\x03U\x04\x0a\x13\x02zo"), []byte(nil))
	f.Add([]byte("\x30\x0e\xa0\x0c\x30\x0a\x87\x08\x0a\x00\x00\x00\xff\x00\x00\x00"), []byte("\x30\x00"),
		[]byte("\x30\x06\x87\x04\x0a\x01\x02\x03"))
	f.Fuzz(func(t *testing.T, nc, subject, alt []byte) {
		ca := &x509.Certificate{Extensions: []pkix.Extension{{Id: oidConstraints, Value: nc}}}
		leaf := &x509.Certificate{RawSubject: subject}
		if len(alt) > 0 {
			leaf.Extensions = []pkix.Extension{{Id: oidAltNames, Value: alt}}
		}
		if !withinConstraints([]*x509.Certificate{leaf, ca}) {
			return
		}
		c, ok := readConstraints(ca)
		names, okNames := namesOf(leaf, true)
		if !ok || c == nil || !okNames {
			t.Fatal("passes, though it cannot be read")
		}
		if !(&constraints{permitted: c.permitted}).allow(names) || !(&constraints{excluded: c.excluded}).allow(names) {
			t.Error("passes both parts, but not each")
		}
	})
}
