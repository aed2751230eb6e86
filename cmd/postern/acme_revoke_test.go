package main

import (
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/ca"
	"github.com/postern-project/postern/store/storetest"
)

// TestACMEKnowsServerCertificatesOnly: whoever has an account may ask to revoke
// any certificate that it is shown, and CAs show theirs to everybody.
func TestACMEKnowsServerCertificatesOnly(t *testing.T) {
	db := storetest.Open(t)
	a, err := ca.Init(t.Context(), ca.Config{Name: "Example"}, db)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.AddPerson(t.Context(), postern.Person{Name: "dan"}); err != nil {
		t.Fatal(err)
	}
	client, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := acmeIssuer{Authority: a}
	for name, serial := range map[string]string{
		"client CA": ca.SerialString(a.Intermediates(ca.Client)[0].SerialNumber),
		"server CA": ca.SerialString(a.Intermediates(ca.Server)[0].SerialNumber),
		"person":    client.Serial,
	} {
		if _, err := issuer.Certificate(t.Context(), serial); postern.CodeOf(err) != postern.NotFound || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := issuer.Certificate(t.Context(), server.Serial); err != nil {
		t.Error(err)
	}
}
