package ca_test

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// allowed are the lints that a private authority's certificates may fail: where,
// and why. One that nothing needs fails the test as well.
var allowed = map[string]struct{ where, why string }{
	"e_sub_cert_certificate_policies_missing": {"server", policies},
	"e_sub_cert_cert_policy_empty":            {"server", policies},
	"e_sub_ca_certificate_policies_missing":   {"server CA", policies},
	"e_invalid_ca_certificate_policies":       {"server CA", policies},
	"e_ca_country_name_missing": {
		"without a country: ",
		"the people who run their own servers need not name a country; --country does",
	},
	"e_ext_san_contains_reserved_ip": {
		"server",
		"a private authority exists for such addresses, too; public ones may not certify them since no one owns " +
			"them alone",
	},
	"e_ext_nc_intersects_reserved_ip": {
		"",
		"the loopback addresses are always permitted: they lead nowhere else",
	},
	"e_dnsname_not_valid_tld": {"server localhost", "the same for names"},
	"w_subject_common_name_included": {
		"server",
		"one of the alternative names is repeated in the CN for programs and people that show or log only that",
	},
	"w_ext_subject_key_identifier_not_recommended_subscriber": {
		"server",
		"RFC 5280 section 4.2.1.2 wants it in all certificates, and zlint warns of its absence as well",
	},
	"e_sub_cert_aia_missing":                         {"without a URL: ", noURL},
	"w_sub_cert_aia_does_not_contain_issuing_ca_url": {"without a URL: ", noURL},
	"e_missing_crl_distrib_point":                    {"without a URL: ", noURL},
	"w_sub_ca_aia_missing":                           {"without a URL: ", noURL},
	"e_sub_ca_crl_distribution_points_missing":       {"without a URL: ", noURL},
	"w_server_cert_valid_time_longer_than_199_days":  {"long-lived server", lifetime},
	"e_server_cert_valid_time_longer_than_200_days":  {"long-lived server", lifetime},
	"e_crl_next_update_invalid": {
		"root CRL",
		"the lint takes every list for one of subscribers' certificates; the root's holds intermediates, for which " +
			"12 months are right",
	},
}

const (
	policies = "a policy identifier would claim that the CA/Browser Forum's requirements are followed, which only " +
		"an audited public authority may"
	noURL    = "an authority without a URL has no address to write there; --url gives it one"
	lifetime = "binds public authorities; browsers do not hold private roots to it, and the default of 90 days is " +
		"below"
)

// TestEveryProfilePassesZlint holds all certificates and lists of authorities of
// each kind against every lint there is: RFC 5280, the CA/Browser Forum's, the
// root programs', ETSI's.
func TestEveryProfilePassesZlint(t *testing.T) {
	used := map[string]bool{}
	for _, cfg := range []ca.Config{
		{},
		{Name: "Example Org", Country: "GB", Domains: []string{
			"example.com", "192.0.2.0/24", "2001:db8::/32",
			"@example.net",
		}, URL: "http://pki.example.com"},
		{Algorithm: ca.P384, URL: "http://pki.example.com"},
		{Algorithm: ca.RSA3072, Country: "DE", Domains: []string{"example.com", "192.0.2.1", "2001:db8::1"}},
	} {
		a, db := newAuthority(t, cfg)
		must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "no.mail"}))
		for name, cert := range profiles(t, a) {
			parsed, err := zx509.ParseCertificate(cert.Raw)
			must(t, err)
			if cfg.URL == "" {
				name = "without a URL: " + name
			}
			if cfg.Country == "" {
				name = "without a country: " + name
			}
			report(t, name, zlint.LintCertificate(parsed), used)
		}
		for _, id := range []string{"root", "server", "client"} {
			crl, err := a.CRL(t.Context(), id)
			must(t, err)
			parsed, err := zx509.ParseRevocationList(crl.DER)
			must(t, err)
			report(t, id+" CRL", zlint.LintRevocationList(parsed), used)
		}
	}
	for name := range allowed {
		if !used[name] {
			t.Errorf("%s is allowed, and nothing needs it", name)
		}
	}
}

func report(t *testing.T, what string, results *zlint.ResultSet, used map[string]bool) {
	t.Helper()
	for name, r := range results.Results {
		if r.Status < lint.Warn {
			continue
		}
		if a, ok := allowed[name]; !ok || !strings.Contains(what, a.where) {
			t.Errorf("%s: %s %s: %s (%s)", what, r.Status, name, r.Details, r.LintMetadata.Description)
		}
		used[name] = true
	}
}

// profiles returns one certificate of every kind that the authority issues.
func profiles(t *testing.T, a *ca.Authority) map[string]*x509.Certificate {
	t.Helper()
	all := map[string]*x509.Certificate{
		"root": a.Root(), "server CA": a.Chain(ca.Server)[0],
		"client CA": a.Chain(ca.Client)[0],
	}
	for _, names := range [][]string{
		{"www.example.com"},
		{"*.example.com", "example.com", "192.0.2.1", "2001:db8::1"},
		{"localhost", "127.0.0.1"},
		{strings.Repeat("a", 60) + ".example.com"},
	} {
		for _, alg := range []ca.Algorithm{ca.P256, ca.P384, ca.RSA3072} {
			if alg == ca.RSA3072 && names[0] != "www.example.com" {
				continue // slow to make
			}
			key, err := ca.GenerateKey(alg)
			must(t, err)
			out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: names, Key: key.Public()})
			must(t, err)
			all[fmt.Sprintf("server %s %s", names[0], alg)] = out.Leaf
		}
	}
	long, err := a.IssueServer(t.Context(), ca.ServerRequest{
		Names:  []string{"www.example.com"},
		Period: ca.Period{Validity: ca.MaxServerValidity},
	})
	must(t, err)
	all["long-lived server"] = long.Leaf
	must(t, a.SetPolicies(t.Context(), configured[3:]))
	for _, alg := range []ca.Algorithm{ca.P256, ca.RSA3072} {
		r := ca.ServerRequest{
			Names: []string{"www.example.com"}, Profile: configured[3].Profile,
			Key: publicKey(t, alg),
		}
		short, err := a.IssueServer(t.Context(), r)
		must(t, err)
		all[fmt.Sprintf("server of a profile of its own, %s", alg)] = short.Leaf
	}
	for _, r := range []ca.ClientRequest{
		{Person: "dan"},
		{Person: "dan", Label: "laptop", Units: []string{"audit", "ops"}},
		{Person: "no.mail"},
	} {
		out, err := a.IssueClient(t.Context(), r)
		must(t, err)
		all["client "+out.Subject] = out.Leaf
	}
	must(t, a.Revoke(t.Context(), long.Serial, postern.Unspecified, postern.Actor{}))
	answer, err := a.OCSP(t.Context(), ocspQuery(t, long, nil))
	must(t, err)
	all["OCSP signer"] = ocspSigner(t, answer.DER)
	return all
}
