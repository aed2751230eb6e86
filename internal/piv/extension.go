package piv

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math"

	"github.com/postern-project/postern"
)

var (
	pinPolicies   = map[byte]string{1: "never", 2: "once", 3: "always", 4: "match-once", 5: "match-always"}
	touchPolicies = map[byte]string{1: "never", 2: "always", 3: "cached"}
	formFactors   = map[byte]string{
		1: "USB-A keychain", 2: "USB-A nano", 3: "USB-C keychain", 4: "USB-C nano", 5: "USB-C and Lightning",
		6: "USB-A Bio", 7: "USB-C Bio",
	}
)

// The bits of the form factor that are none: the FIPS series, a Security Key.
const (
	fips        = 0x80
	securityKey = 0x40
)

// readers read the extensions that a YubiKey writes, below Yubico's arc, by their OIDs. They
// report whether they could.
var readers = map[string]func(a *Attestation, value []byte) bool{
	"1.3.6.1.4.1.41482.3.3": func(a *Attestation, v []byte) bool {
		if len(v) != 3 {
			return false
		}
		a.Firmware = fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
		return true
	},
	"1.3.6.1.4.1.41482.3.7": func(a *Attestation, v []byte) bool {
		var n int64
		rest, err := asn1.Unmarshal(v, &n)
		a.Serial = uint32(n)
		return err == nil && len(rest) == 0 && n >= 0 && n <= math.MaxUint32
	},
	"1.3.6.1.4.1.41482.3.8": func(a *Attestation, v []byte) bool {
		if len(v) != 2 {
			return false
		}
		a.PIN, a.Touch = pinPolicies[v[0]], touchPolicies[v[1]]
		return a.PIN != "" && a.Touch != ""
	},
	"1.3.6.1.4.1.41482.3.9": func(a *Attestation, v []byte) bool {
		if len(v) != 1 {
			return false
		}
		a.FormFactor, a.FIPS = formFactors[v[0]&^(fips|securityKey)], v[0]&fips != 0
		return true
	},
}

// Read returns what the extensions of a certificate say of the YubiKey that made its key,
// and whether they say it: they do in an attestation, and in a certificate that was issued
// with one. It fails with [postern.Invalid] where they cannot be read.
func Read(extensions []pkix.Extension) (a Attestation, found bool, err error) {
	for _, e := range extensions {
		read := readers[e.Id.String()]
		switch {
		case read == nil:
			continue
		case !read(&a, e.Value):
			return Attestation{}, false, postern.Errorf(postern.Invalid, "extension %s cannot be read", e.Id)
		}
		a.Extensions = append(a.Extensions, pkix.Extension{Id: e.Id, Value: e.Value})
	}
	found = a.Firmware != ""
	if found != (a.PIN != "") {
		return Attestation{}, false, postern.Errorf(postern.Invalid, "extensions of an attestation are missing")
	}
	return a, found, nil
}
