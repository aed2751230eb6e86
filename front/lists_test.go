package front

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

// TestOtherPeoplesListsAreReadAgain revokes a certificate of another CA by its
// list, on a live connection.
func TestOtherPeoplesListsAreReadAgain(t *testing.T) {
	h := newRig(t)
	other := issue(t, nil, func(c *x509.Certificate) { authority("Other CA")(c); c.KeyUsage |= x509.KeyUsageCRLSign })
	dan := issue(t, other, person("dan"))
	h.file(t, "other.pem", string(other.pem()))
	number := int64(0)
	list := func(next time.Time, revoked ...x509.RevocationListEntry) {
		t.Helper()
		number++
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: next,
			RevokedCertificateEntries: revoked,
		}, other.cert, other.key)
		if err != nil {
			t.Fatal(err)
		}
		h.file(t, "other.crl", string(der))
	}
	list(time.Now().Add(time.Hour))
	https, _ := h.serve(t,
		"localhost:HTTPS {\n\trequire /x* {\n\t\ttrust DIR/other.pem\n\t\tcrl DIR/other.crl\n"+
			"\t\tperson dan@example.com\n\t}\n\trespond ok\n}\n")
	var trust *trust
	guarded.mu.RLock()
	for _, guards := range guarded.of {
		trust = guards[0].guards[0].trust
	}
	guarded.mu.RUnlock()

	live := dialLive(t, h, https, "2", dan)
	if got := live("/x"); got.status != 200 {
		t.Fatalf("before: %d %s", got.status, got.body)
	}
	list(time.Now().Add(time.Hour), x509.RevocationListEntry{
		SerialNumber:   dan.cert.SerialNumber,
		RevocationTime: time.Now(),
	})
	trust.looked.Store(-int64(lookEvery))
	if got := live("/x"); got.status != 403 {
		t.Errorf("revoked: %d", got.status)
	}
	list(time.Now().Add(-time.Second))
	trust.looked.Store(-int64(lookEvery))
	if got := dialLive(t, h, https, "2", dan)("/x"); got.status != 503 {
		t.Errorf("by a list that has ended: %d", got.status)
	}
	h.file(t, "other.crl", "no list")
	trust.looked.Store(-int64(lookEvery))
	if got := dialLive(t, h, https, "2", dan)("/x"); got.status != 503 {
		t.Errorf("by a file that is no list: %d", got.status)
	}
	list(time.Now().Add(time.Hour))
	trust.looked.Store(-int64(lookEvery))
	if got := dialLive(t, h, https, "2", dan)("/x"); got.status != 200 {
		t.Errorf("afterwards: %d", got.status)
	}
}
