package pkcs11

import (
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

func TestURIsAreReadAndWritten(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"pkcs11:", "pkcs11:"},
		{
			"pkcs11:token=The%20one;serial=0a?pin-source=file:/run/pin",
			"pkcs11:token=The%20one;serial=0a?pin-source=/run/pin",
		},
		{
			"pkcs11:module-path=/usr/lib/x.so;token=a%3Bb;pin-source=/p",
			"pkcs11:token=a%3Bb?module-path=/usr/lib/x.so&pin-source=/p",
		},
		{"pkcs11:id=%00%26%ff;object=a+b;type=private", "pkcs11:object=a%2Bb;id=%00%26%ff"},
		{"pkcs11:id=02", "pkcs11:id=%30%32"},
	} {
		u, err := Parse(c.in)
		if err != nil || u.String() != c.out {
			t.Errorf("%s: %s, %v", c.in, u, err)
		}
	}
	for in, want := range map[string]string{
		"":                                    "not a PKCS#11 URI",
		"tpmkms:name=x":                       "not a PKCS#11 URI",
		"pkcs11:token=a;token=b":              "token is not given once",
		"pkcs11:token=":                       "token is not given once",
		"pkcs11:token=%zz":                    "token is not given once",
		"pkcs11:token=a%00":                   "token is not given once",
		"pkcs11:slot-id=1":                    `unknown attribute "slot-id"`,
		"pkcs11:type=cert":                    "of type private",
		"pkcs11:?pin-source=pin":              "absolute path",
		"pkcs11:?pin-source=|cat%20/etc/pin":  "absolute path",
		"pkcs11:token=a?pin-value=s3cr3t":     "holds a PIN",
		"pkcs11:pin-value=%zzs3cr3t;token=a":  "holds a PIN",
		"pkcs11:" + strings.Repeat("x", 4000): "not a PKCS#11 URI",
	} {
		_, err := Parse(in)
		if postern.CodeOf(err) != postern.Invalid || err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%.60s: %v", in, err)
		}
	}
}

// FuzzURI reads any URI: what is read is written so that it reads the same.
func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=The%20one;serial=0a;object=x;id=%00%ff?module-path=/usr/lib/x.so&pin-source=file:/run/pin")
	f.Add("pkcs11:module-path=/usr/lib/softhsm/libsofthsm2.so;token=postern?pin-value=1234")
	f.Fuzz(func(t *testing.T, in string) {
		u, err := Parse(in)
		if err != nil {
			return
		}
		again, err := Parse(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q is %q is %q, %v", in, u, again, err)
		}
	})
}
