package server

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/crypto/acme"
)

// TestCertificatesEndWhenClientsAsk orders certificates as cert-manager does for a
// Certificate with a duration, by golang.org/x/crypto/acme, and a second one as at
// renewal.
func TestCertificatesEndWhenClientsAsk(t *testing.T) {
	rig := newACMERig(t)
	s := rig.site(t, 31)
	proofs := s.webroot()
	secret, err := base64.RawURLEncoding.DecodeString(s.hmac)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(rig.ca.Root())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &acme.Client{
		Key: posterntest.NewKey(t), DirectoryURL: rig.directory,
		HTTPClient: &http.Client{Transport: transport},
	}
	account := &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: s.kid, Key: secret}}
	if _, err := client.Register(t.Context(), account, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	for _, lasts := range []time.Duration{time.Hour, 24 * time.Hour} {
		from, to := time.Now().Add(-time.Minute).UTC().Truncate(time.Second),
			time.Now().Add(lasts).UTC().Truncate(time.Second)
		leaf := s.obtain(client, proofs, acme.WithOrderNotBefore(from), acme.WithOrderNotAfter(to))
		if !leaf.NotBefore.Equal(from) || !leaf.NotAfter.Equal(to) {
			t.Errorf("valid from %v to %v, want %v to %v", leaf.NotBefore, leaf.NotAfter, from, to)
		}
	}
	if leaf := s.obtain(client, proofs); time.Until(leaf.NotAfter) < 89*24*time.Hour {
		t.Errorf("without an end the certificate ends on %v", leaf.NotAfter)
	}
	late := time.Now().Add(ca.MaxServerValidity + time.Hour)
	if _, err := client.AuthorizeOrder(t.Context(), acme.DomainIDs(s.name), acme.WithOrderNotAfter(late)); err == nil {
		t.Error("an order is taken whose certificate would be valid for too long")
	}
}

// obtain gets a certificate for the site.
func (s *acmeSite) obtain(client *acme.Client, proofs string, opts ...acme.OrderOption) *x509.Certificate {
	s.t.Helper()
	ctx := s.t.Context()
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(s.name), opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	authz, err := client.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range authz.Challenges {
		if c.Type != "http-01" {
			continue
		}
		text, err := client.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			s.t.Fatal(err)
		}
		writeFile(s.t, filepath.Join(proofs, c.Token), text)
		if _, err := client.Accept(ctx, c); err != nil {
			s.t.Fatal(err)
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		s.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{s.name}},
		posterntest.NewKey(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return leaf
}
