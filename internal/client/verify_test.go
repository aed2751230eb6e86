package client

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

// TestVerifyAsksTheService asks Postern's validation service over TLS.
func TestVerifyAsksTheService(t *testing.T) {
	db := storetest.Open(t)
	keys := db.OTP()
	service, err := otp.NewService(otp.Config{}, keys, db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close() })
	srv := httptest.NewTLSServer(service)
	t.Cleanup(srv.Close)
	root := filepath.Join(t.TempDir(), "root.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(root, text, 0o644); err != nil {
		t.Fatal(err)
	}
	roots, err := ReadRoots(root)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("secret of client 2")
	if err := keys.AddClient(t.Context(), &otp.APIClient{ID: 2, Secret: secret, MustSign: true}); err != nil {
		t.Fatal(err)
	}
	k := otp.NewSoftToken()
	known := []*otp.Key{{PublicID: k.PublicID, Secret: &k.Secret, Last: otp.Never}}
	if err := keys.AddKeys(t.Context(), postern.Actor{}, known, false); err != nil {
		t.Fatal(err)
	}
	code, err := k.Touch(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := otp.NewSoftToken().Touch(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good := otp.ClientConfig{ID: 2, Key: secret, URLs: []string{srv.URL + "/wsapi/2.0/verify"}, Roots: roots}
	wrongKey, noRoots, noKey := good, good, good
	wrongKey.Key, noRoots.Roots, noKey.Key = []byte("another"), nil, nil
	for _, c := range []struct {
		name    string
		service otp.ClientConfig
		code    string
		want    postern.Code // 0: it is good
	}{
		{"another API key", wrongKey, code.Modhex(), postern.Unavailable},
		{"a server that is not trusted", noRoots, code.Modhex(), postern.Unavailable},
		{"no API key", noKey, code.Modhex(), postern.Invalid},
		{"a good code", good, code.Modhex(), 0},
		{"it again", good, code.Modhex(), postern.Denied},
		{"an unknown key", good, unknown.Modhex(), postern.Denied},
		{"six digits", good, "123456", postern.Denied},
	} {
		id, err := Verify(t.Context(), c.service, c.code)
		switch {
		case c.want == 0 && (err != nil || id != k.PublicID):
			t.Errorf("%s: %q, %v", c.name, id, err)
		case c.want != 0 && (postern.CodeOf(err) != c.want || id != ""):
			t.Errorf("%s: %q, %v", c.name, id, err)
		}
	}
}
