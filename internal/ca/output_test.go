package ca_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

func TestOutput(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	key, err := ca.GenerateKey(ca.P256)
	must(t, err)
	layouts, err := ca.ParseLayouts([]string{"nginx", "pkcs12"}, ca.LayoutPEM)
	must(t, err)
	o := ca.Output{Dir: t.TempDir(), Layouts: layouts, Password: "secret of the file"}
	names := []string{"www.example"}
	must(t, o.Check(a, ca.ProfileServer, "", names))
	issued, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: names, Key: key.Public()})
	must(t, err)
	written, err := o.Write(issued, key)
	must(t, err)
	for _, name := range []string{"www.example.pem", "www.example.key", "www.example.p12"} {
		if !slices.Contains(written, filepath.Join(o.Dir, name)) {
			t.Errorf("wrote %q, not %s", written, name)
		}
	}
	for _, file := range written {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	wantCode(t, o.Check(a, ca.ProfileServer, "", names), postern.Conflict, "exists already")
	o.Force = true
	must(t, o.Check(a, ca.ProfileServer, "", names))
	wantCode(t, o.Check(a, ca.ProfileClient, "dan", nil), postern.Invalid, "nginx is for server certificates")
}

func TestParseLayouts(t *testing.T) {
	list, err := ca.ParseLayouts(nil, ca.LayoutPKCS12, ca.LayoutPEM)
	must(t, err)
	if !slices.Equal(list, []ca.Layout{ca.LayoutPKCS12, ca.LayoutPEM}) || !(ca.Output{Layouts: list}).NeedsPassword() {
		t.Errorf("by default: %q", list)
	}
	_, err = ca.ParseLayouts([]string{"pem", "floppy"})
	wantCode(t, err, postern.Invalid, `unknown layout "floppy"`)
}

func TestNewKey(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	must(t, a.SetPolicies(t.Context(), configured))
	for _, c := range []struct {
		profile ca.Profile
		alg     ca.Algorithm
		layout  ca.Layout
		want    ca.Algorithm
	}{
		{ca.ProfileServer, "", ca.LayoutPEM, ca.P384}, // the first that the profile certifies
		{ca.ProfileClient, "", ca.LayoutPEM, ca.P256},
		{ca.ProfileClient, "", ca.LayoutLibvirt, ca.RSA3072},
		{ca.ProfileClient, ca.P384, ca.LayoutLibvirt, ca.P384},
	} {
		key, err := a.NewKey(c.profile, c.alg, []ca.Layout{ca.LayoutPEM, c.layout})
		must(t, err)
		want, err := ca.GenerateKey(c.want)
		must(t, err)
		if got := key.Public(); fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want.Public()) ||
			sizeOf(got) != sizeOf(want.Public()) {
			t.Errorf("%+v: the key is a %T of %d bits", c, got, sizeOf(got))
		}
	}
	_, err := a.NewKey("other", "", nil)
	wantCode(t, err, postern.NotFound, "profile")
}

// sizeOf returns how many bits a public key has.
func sizeOf(pub any) int {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize
	case *rsa.PublicKey:
		return k.N.BitLen()
	}
	return 0
}

// TestReadKey reads what EncodeKey and EncodePKCS12 write.
func TestReadKey(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	key, err := ca.GenerateKey(ca.P256)
	must(t, err)
	issued, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example"}, Key: key.Public()})
	must(t, err)
	other, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"other.example"}})
	must(t, err)
	plain, err := ca.EncodeKey(key, nil)
	must(t, err)
	encrypted, err := ca.EncodeKey(key, []byte("secret of the file"))
	must(t, err)
	packed, err := ca.EncodePKCS12(key, issued, "secret of the file", false)
	must(t, err)
	for name, c := range map[string]struct {
		data []byte
		asks bool
	}{"PEM": {plain, false}, "encrypted PEM": {encrypted, true}, "PKCS#12": {packed, true}} {
		t.Run(name, func(t *testing.T) {
			asked := false
			ask := func() ([]byte, error) { asked = true; return []byte("secret of the file"), nil }
			if _, err := ca.ReadKey(c.data, issued.Leaf, ask); err != nil || asked != c.asks {
				t.Errorf("asked %t, %v", asked, err)
			}
			_, err := ca.ReadKey(c.data, other.Leaf, ask)
			wantCode(t, err, postern.Invalid, "another certificate's key")
			if !c.asks {
				return
			}
			_, err = ca.ReadKey(c.data, nil, func() ([]byte, error) { return []byte("wrong"), nil })
			wantCode(t, err, postern.Invalid, "")
			none := errors.New("nobody to ask")
			if _, err := ca.ReadKey(c.data, nil, func() ([]byte, error) { return nil, none }); !errors.Is(err, none) {
				t.Errorf("nobody to ask: %v", err)
			}
		})
	}
}
