package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	acmeclient "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestTheConfigurationSaysWhatCertificatesAreLike starts a server with a ca and an acme
// block. Its ACME clients and another process see what they say, and go on to when the
// next configuration cannot be loaded.
func TestTheConfigurationSaysWhatCertificatesAreLike(t *testing.T) {
	port := posterntest.FreePort(t)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	configure := func(server, site string) {
		writeFile(t, file, fmt.Sprintf(`{
	https_port %d
	http_port %d
	default_bind 127.0.0.1
	postern {
		portal localhost
		ca {
			server {
				%s
			}
			profile shortlived {
				description "for servers that renew often"
				validity 6d
				max 6d
			}
		}
		acme {
			anonymous_from 127.0.0.0/8
			anonymous_names *.lan
		}
	}
}
%s
`, port, posterntest.FreePort(t), server, site))
	}
	configure("validity 30d\n max 90d\n keys ecdsa-p256 rsa-3072", "")
	r := startServer(t, func(o *Options) { o.Config, o.HTTPSPort, o.HTTPPort = file, 0, 0 })
	r.awaitSite(port, "localhost", r.root())
	client := acmeAt(t, r, port)
	directory, err := client.GetDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta := directory.Meta; meta.ExternalAccountRequired || meta.Profiles["server"] == "" ||
		meta.Profiles["shortlived"] != "for servers that renew often" {
		t.Errorf("the directory says %+v", meta)
	}
	account, err := client.NewAccount(t.Context(), acmeclient.Account{PrivateKey: posterntest.NewKey(t)})
	if err != nil {
		t.Fatalf("an account without a key: %v", err)
	}
	for name, want := range map[string]bool{"www.lan": true, "www.example.com": false} {
		_, err := client.NewOrder(t.Context(), account,
			acmeclient.Order{Identifiers: []acmeclient.Identifier{{Type: "dns", Value: name}}})
		if (err == nil) != want {
			t.Errorf("an order for %s: %v", name, err)
		}
	}
	r.hasServerPolicy(30 * 24 * time.Hour)
	for _, broken := range [][2]string{
		{"validity 100d\n max 90d", ""},                                // no such profile can be
		{"validity 10d", "https://localhost {\n tls no.crt no.key\n}"}, // something else is wrong
	} {
		configure(broken[0], broken[1])
		if _, _, err := Reload(t.Context(), r.opts.State, ""); err == nil {
			t.Errorf("%q was loaded", broken)
		}
		r.hasServerPolicy(30 * 24 * time.Hour)
	}
	configure("validity 20d", "")
	if _, _, err := Reload(t.Context(), r.opts.State, ""); err != nil {
		t.Fatal(err)
	}
	r.hasServerPolicy(20 * 24 * time.Hour)
}

// acmeAt returns a client of the server's ACME service.
func acmeAt(t *testing.T, r *running, port int) *acmeclient.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(r.root())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &acmeclient.Client{
		Directory:  fmt.Sprintf("https://localhost:%d/acme/directory", port),
		HTTPClient: &http.Client{Transport: transport},
	}
}

// hasServerPolicy fails unless another process sees that servers' certificates are valid
// so long.
func (r *running) hasServerPolicy(want time.Duration) {
	r.t.Helper()
	st := r.open()
	a, err := ca.Open(r.t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		r.t.Fatal(err)
	}
	if got := a.Policies()[0]; got.Profile != ca.ProfileServer || got.Validity != want {
		r.t.Errorf("certificates of %s are valid for %v, want %v", got.Profile, got.Validity, want)
	}
}

func TestWhoMayHaveAnonymousAccounts(t *testing.T) {
	inside, outside := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		config front.ACME
		from   netip.Addr
		names  []string
		want   bool
	}{
		{front.ACME{AnonymousFrom: []string{"10.0.0.0/8"}}, inside, nil, true},
		{front.ACME{AnonymousFrom: []string{"10.0.0.0/8"}}, inside, []string{"www.example.com"}, true},
		{front.ACME{AnonymousFrom: []string{"10.0.0.0/8"}}, outside, nil, false},
		{front.ACME{AnonymousFrom: []string{"10.0.0.0/8"}}, netip.Addr{}, nil, false},
		{front.ACME{AnonymousNames: []string{"*.lan", "10.0.0.0/8"}}, outside, []string{"*.a.lan", "10.9.9.9"}, true},
		{front.ACME{AnonymousNames: []string{"*.lan"}}, outside, []string{"a.lan", "lan"}, false},
		{front.ACME{AnonymousNames: []string{"*.lan"}}, outside, []string{"10.9.9.9"}, false},
		{
			front.ACME{AnonymousFrom: []string{"10.0.0.0/8"}, AnonymousNames: []string{"*.lan"}},
			outside,
			[]string{"a.lan"},
			false,
		},
		{
			front.ACME{AnonymousFrom: []string{"10.0.0.0/8"}, AnonymousNames: []string{"*.lan"}},
			inside,
			[]string{"a.example.com"},
			false,
		},
	} {
		permit, err := anonymous(c.config)
		if err != nil {
			t.Fatal(err)
		}
		if got := permit(c.from, c.names); got != c.want {
			t.Errorf("%+v from %v for %v: %v", c.config, c.from, c.names, got)
		}
	}
	if permit, err := anonymous(front.ACME{}); permit != nil || err != nil {
		t.Error("nothing is configured, and some accounts are permitted", err)
	}
	for _, wrong := range []front.ACME{{AnonymousFrom: []string{"10.0.0.1"}}, {AnonymousNames: []string{"*.com"}}} {
		if _, err := anonymous(wrong); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}
