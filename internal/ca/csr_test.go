package ca_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

func TestSignCSR(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	www := csr(t, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "www.example.com"},
		DNSNames: []string{"example.com"},
	})
	u, _ := url.Parse("spiffe://x/y")
	for _, c := range []struct {
		name  string
		csr   []byte
		r     ca.SignRequest
		code  postern.Code
		words string // of the error; "": none
	}{
		{"CN is a name", www, ca.SignRequest{
			Profile: ca.ProfileServer,
			Proved:  []string{"www.example.com", "example.com"},
		}, 0, ""},
		{
			"a name that was not proved", www,
			ca.SignRequest{Profile: ca.ProfileServer, Proved: []string{"example.com"}},
			postern.Denied, "www.example.com was not proved",
		},
		{
			"no name was proved", www,
			ca.SignRequest{Profile: ca.ProfileServer, Proved: []string{}},
			postern.Denied,
			"was not proved",
		},
		{"more names than agreed", www, ca.SignRequest{
			Names:  []string{"example.com"},
			Proved: []string{"example.com"},
		}, postern.Denied, "www.example.com"},
		{"the names given are the names", www, ca.SignRequest{Names: []string{"other.example"}}, 0, ""},
		{
			"whatever an appliance calls itself",
			csr(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "ILOCZ1234"}}),
			ca.SignRequest{Names: []string{"ilo.example.test"}},
			0, "",
		},
		{"whatever else it asks for", csr(t, x509.CertificateRequest{
			URIs: []*url.URL{u}, EmailAddresses: []string{"admin@ilo"}, DNSNames: []string{"_x", "*"},
			IPAddresses: []net.IP{net.IPv4zero},
		}), ca.SignRequest{Names: []string{"ilo.example.test"}}, 0, ""},
		{
			"a mail address on a server",
			csr(t, x509.CertificateRequest{DNSNames: []string{"a.example"}, EmailAddresses: []string{"x@a.example"}}),
			ca.SignRequest{Profile: ca.ProfileServer},
			postern.Invalid, "e-mail",
		},
		{
			"a URI", csr(t, x509.CertificateRequest{URIs: []*url.URL{u}}),
			ca.SignRequest{Profile: ca.ProfileServer},
			postern.Invalid, "URI",
		},
		{
			"no name", csr(t, x509.CertificateRequest{}),
			ca.SignRequest{Profile: ca.ProfileServer},
			postern.Invalid,
			"at least one name",
		},
		{
			"a client's key alone", csr(t, x509.CertificateRequest{}),
			ca.SignRequest{Profile: ca.ProfileClient, Person: "dan"},
			0, "",
		},
		{
			"a client's own address", csr(t, x509.CertificateRequest{EmailAddresses: []string{"Dan@example.com"}}),
			ca.SignRequest{Profile: ca.ProfileClient, Person: "dan"},
			0, "",
		},
		{
			"another's address", csr(t, x509.CertificateRequest{EmailAddresses: []string{"eve@example.com"}}),
			ca.SignRequest{Profile: ca.ProfileClient, Person: "dan"},
			postern.Denied, "not dan's",
		},
		{
			"a server's name on a client", csr(t, x509.CertificateRequest{IPAddresses: []net.IP{{127, 0, 0, 1}}}),
			ca.SignRequest{Profile: ca.ProfileClient, Person: "dan"},
			postern.Invalid, "server name",
		},
		{
			"otherName",
			csr(t,
				x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{
					Id:    []int{2, 5, 29, 17},
					Value: []byte{0x30, 6, 0xa0, 4, 6, 2, 0x2a, 3},
				}}}),
			ca.SignRequest{Profile: ca.ProfileServer},
			postern.Invalid, "not certified",
		},
		{
			"a profile that is not signed", www,
			ca.SignRequest{Profile: ca.ProfileIntermediate},
			postern.NotFound,
			"profile",
		},
		{"nothing", nil, ca.SignRequest{Profile: ca.ProfileServer}, postern.Invalid, "no certificate request"},
		{
			"a private key", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
			ca.SignRequest{Profile: ca.ProfileServer},
			postern.Invalid, "private key",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := a.IssueCSR(t.Context(), c.csr, c.r)
			if c.words != "" {
				wantCode(t, err, c.code, c.words)
				return
			}
			must(t, err)
			if out.Key != nil {
				t.Error("a key came back")
			}
		})
	}
}
