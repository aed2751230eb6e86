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
	o := ca.Output{Dir: t.TempDir(), Password: "secret of the file"}
	must(t, o.AddLayout("nginx"))
	must(t, o.AddLayout("pkcs12"))
	wantCode(t, o.AddLayout("floppy"), postern.Invalid, `unknown layout "floppy"`)
	names := ca.SignRequest{Names: []string{"www.example"}}
	issued, err := o.Issue(t.Context(), a, "", names)
	must(t, err)
	written, err := o.Write(issued)
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
	_, err = o.Issue(t.Context(), a, "", names)
	wantCode(t, err, postern.Conflict, "exists already")
	_, err = o.Renew(t.Context(), a, issued, ca.RenewRequest{})
	wantCode(t, err, postern.Conflict, "exists already")
	o.Force = true
	_, err = o.Issue(t.Context(), a, "", ca.SignRequest{Person: "dan"})
	wantCode(t, err, postern.Invalid, "nginx is for server certificates")
	_, err = o.Renew(t.Context(), a, issued, ca.RenewRequest{SameKey: true})
	wantCode(t, err, postern.Invalid, "holds the private key")
	all, err := a.Certificates(t.Context(), ca.Filter{Leaves: true})
	must(t, err)
	if len(all) != 1 {
		t.Errorf("%d certificates, where the files of one could be written", len(all))
	}
	renewed, err := o.Renew(t.Context(), a, issued, ca.RenewRequest{})
	must(t, err)
	if renewed.Renews != issued.Serial || renewed.Key == nil {
		t.Errorf("renewed as %+v", renewed)
	}
}

func TestOutputByDefault(t *testing.T) {
	for _, c := range []struct {
		profile ca.Profile
		newKey  bool
		asked   []ca.Layout
		want    []ca.Layout
	}{
		{ca.ProfileServer, true, nil, []ca.Layout{ca.LayoutPEM}},
		{ca.ProfileClient, true, nil, []ca.Layout{ca.LayoutPKCS12, ca.LayoutPEM}},
		{ca.ProfileClient, false, nil, []ca.Layout{ca.LayoutPEM}},
		{ca.ProfileClient, true, []ca.Layout{ca.LayoutLibvirt}, []ca.Layout{ca.LayoutLibvirt}},
	} {
		o := ca.Output{Dir: "here", Layouts: c.asked}
		must(t, o.Complete(c.profile, c.newKey))
		if !slices.Equal(o.Layouts, c.want) || !filepath.IsAbs(o.Dir) ||
			o.NeedsPassword() != slices.Contains(c.want, ca.LayoutPKCS12) {
			t.Errorf("%+v becomes %+v", c, o)
		}
	}
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
			none := errors.New("no terminal to ask on")
			if _, err := ca.ReadKey(c.data, nil, func() ([]byte, error) { return nil, none }); !errors.Is(err, none) {
				t.Errorf("no terminal to ask on: %v", err)
			}
		})
	}
}
