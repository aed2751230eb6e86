package front

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
)

// TestConstrainedCAGivesNoOthersAddress opens a place for an address with a
// certificate whose CA may only issue for another domain, and reads what is said.
func TestConstrainedCAGivesNoOthersAddress(t *testing.T) {
	h := newRig(t)
	zoo := issue(t, nil, func(c *x509.Certificate) {
		authority("Zoo CA")(c)
		c.PermittedEmailAddresses = []string{"zoo.example"}
	})
	h.file(t, "zoo.pem", string(zoo.pem()))
	shows := func(address string) *holder {
		return issue(t, zoo, func(c *x509.Certificate) {
			oid := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
			value := asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(address)}
			c.Subject = pkix.Name{CommonName: "a", ExtraNames: []pkix.AttributeTypeAndValue{{Type: oid, Value: value}}}
		})
	}
	https, _ := h.serve(t,
		"localhost:HTTPS {\n\trequire {\n\t\ttrust DIR/zoo.pem\n\t\tperson a@evil.example a@zoo.example\n\t}\n"+
			"\trespond ok\n}\n")
	if got := dialLive(t, h, https, "2", shows("a@zoo.example"))("/"); got.status != 200 {
		t.Errorf("an address that the CA may issue: %d %s", got.status, got.body)
	}
	got := dialLive(t, h, https, "2", shows("a@evil.example"))("/")
	if got.status != 403 {
		t.Errorf("an address that the CA may not issue: %d %s", got.status, got.body)
	}
	if !strings.Contains(got.body, "may not issue") {
		t.Errorf("the refusal does not say why: %s", got.body)
	}
}
