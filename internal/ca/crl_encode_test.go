package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// TestListIsWhatCryptoX509Writes compares the bytes that are signed with those of
// x509.CreateRevocationList, for every key and for entries of each shape, and reads the
// entries back.
func TestListIsWhatCryptoX509Writes(t *testing.T) {
	this := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	entries := []Revocation{
		{Serial: "0a", Time: this.Add(-time.Hour)},
		{Serial: "ff0000000000000000000000000000000000ff", Time: this, Reason: postern.KeyCompromise},
		{Serial: "80", Time: this.Add(time.Minute), Reason: postern.Superseded},
		{Serial: "1234", Time: time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	noError(t, err)
	for name, iss := range map[string]*issuer{
		"P-256": leafIssuer(t, P256), "P-384": leafIssuer(t, P384), "RSA": issuerWith(t, old),
	} {
		for n := range len(entries) + 1 {
			crl := CRL{Number: 1<<40 + 128, ThisUpdate: this, NextUpdate: this.AddDate(30, 0, 0)}
			encoded, err := encodeRevocations(entries[:n], this)
			noError(t, err)
			got, err := iss.signList(crl, encoded)
			noError(t, err)
			sameList(t, iss, crl, entries[:n], got)
			if back, ok := iss.listed(got); !ok || !bytes.Equal(back, encoded) {
				t.Errorf("%s, %d entries: read %x, %v; want %x", name, n, back, ok, encoded)
			}
			if _, ok := leafIssuer(t, P256).listed(got); ok {
				t.Errorf("%s: another CA takes the list for its own", name)
			}
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sameList(t *testing.T, iss *issuer, crl CRL, list []Revocation, got []byte) {
	t.Helper()
	tmpl := &x509.RevocationList{
		Number: big.NewInt(crl.Number), ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate,
	}
	for _, r := range list {
		serial, _ := new(big.Int).SetString(r.Serial, 16)
		if r.Time.After(crl.ThisUpdate) {
			r.Time = crl.ThisUpdate
		}
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: r.Time, ReasonCode: int(r.Reason)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, iss.cert, iss.signer)
	noError(t, err)
	want, err := x509.ParseRevocationList(der)
	noError(t, err)
	g, err := x509.ParseRevocationList(got)
	noError(t, err)
	if !bytes.Equal(g.RawTBSRevocationList, want.RawTBSRevocationList) {
		t.Errorf("signed is\n%x\ninstead of\n%x", g.RawTBSRevocationList, want.RawTBSRevocationList)
	}
	noError(t, g.CheckSignatureFrom(iss.cert))
}

// TestListOfABrokenSigner has a key sign something else.
func TestListOfABrokenSigner(t *testing.T) {
	iss := leafIssuer(t, P256)
	crl := CRL{Number: 1, ThisUpdate: time.Now(), NextUpdate: time.Now()}
	_, err := iss.signList(crl, nil)
	noError(t, err)
	iss.signer = brokenSigner{iss.signer}
	if _, err := iss.signList(crl, nil); err == nil {
		t.Error("a wrong signature of a device was taken")
	}
}
