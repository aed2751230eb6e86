package gate_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
	"github.com/postern-project/postern/internal/piv/pivtest"
)

// subject verifies a fresh certificate with the given subject and gives it to a holder.
func subject(t testing.TB, ca *signer, holder *gate.Holder, own bool, change func(*x509.Certificate)) *gate.Subject {
	t.Helper()
	c := issue(t, ca, change)
	trust := gate.NewTrust(nil, []*x509.Certificate{ca.cert}, nil)
	if own {
		trust = gate.NewTrust([]*x509.Certificate{ca.cert}, nil, nil)
	}
	v, reason := trust.Verify([]*x509.Certificate{c.cert}, time.Now())
	if reason != gate.OK {
		t.Fatal(reason)
	}
	return &gate.Subject{Verified: v, Holder: holder, Request: &gate.Request{
		Method: "GET", Path: "/reports/q3", Query: "a=b", Host: "www.example.com", Proto: "HTTP/2.0",
		Header:  http.Header{"User-Agent": {"Lynx"}, "X-Twice": {"a", "b"}},
		Address: netip.MustParseAddr("192.0.2.7"),
		Time:    time.Date(2026, 5, 4, 13, 30, 0, 0, time.UTC),
	}}
}

func TestRules(t *testing.T) {
	ca := issue(t, nil, authority("Example Client CA"))
	s := subject(t, ca, &gate.Holder{Person: postern.Person{
		Name: "alice", Email: "alice@example.com",
		Groups: []string{"admin", "audit"},
	}}, true,
		func(c *x509.Certificate) {
			c.RawSubject = rdns(t, "O", "Example", "OU", "audit", "OU", "night", "CN", "alice", "CN", "mallory", "E",
				"alice@example.com")
			c.EmailAddresses = []string{"alice@example.com"}
		})
	for rule, want := range map[string]gate.Reason{
		`true`:  gate.OK,
		`false`: gate.RuleFailed,
		`cert.issuer.cn == "Example Client CA" && cert.subject.ou.exists(u, u == "audit")`: gate.OK,
		`cert.subject.o == "Example"`:               gate.OK,
		`"Example" == cert.subject.o`:               gate.OK,
		`cert.subject.email == "alice@example.com"`: gate.OK,
		`cert.san.email == person.email`:            gate.OK,
		`cert.subject.cn == "alice"`:                gate.RuleFailed, // two values
		`cert.subject.cn == "mallory"`:              gate.RuleFailed,
		// nor is it known not to be eve
		`cert.subject.cn != "eve"`:                                        gate.RuleFailed,
		`!(cert.subject.cn == "eve")`:                                     gate.RuleFailed,
		`!(cert.subject.cn in ["eve"])`:                                   gate.RuleFailed,
		`cert.subject.cn in ["alice", "mallory"]`:                         gate.RuleFailed,
		`cert.subject.cn.startsWith("a")`:                                 gate.RuleFailed,
		`cert.subject.cn == "alice" || person.name == "alice"`:            gate.OK,
		`cert.subject.uid == ""`:                                          gate.RuleFailed, // none at all
		`cert.subject.uid != "eve"`:                                       gate.RuleFailed,
		`size(cert.subject.uid) == 0`:                                     gate.OK,
		`cert.subject.cn.size() == 2`:                                     gate.OK,
		`cert.subject.cn[0] == "alice"`:                                   gate.OK,
		`cert.subject.cn == ["alice", "mallory"]`:                         gate.OK,
		`"night" in cert.subject.ou`:                                      gate.OK,
		`cert.subject.ou.all(u, u in ["audit", "night"])`:                 gate.OK,
		`cert.subject.ou.all(u, u == "audit")`:                            gate.RuleFailed,
		`has(cert.subject.uid)`:                                           gate.RuleFailed,
		`has(cert.subject.ou)`:                                            gate.OK,
		`cert.subject.o.matches("^Ex.*e$")`:                               gate.OK,
		`cert.subject.o in ["Example", "Other"]`:                          gate.OK,
		`cert.subject.o + "!" == "Example!"`:                              gate.OK,
		`issuer.subject.cn == "Example Client CA"`:                        gate.OK,
		`chain.exists(c, c.subject.cn == "Example Client CA")`:            gate.OK,
		`size(chain) == 2`:                                                gate.OK,
		`"admin" in person.groups && person.known`:                        gate.OK,
		`request.method == "GET" && request.path.startsWith("/reports/")`: gate.OK,
		`request.headers["user-agent"] == "Lynx"`:                         gate.OK,
		`request.headers["x-twice"] == "a"`:                               gate.RuleFailed,
		`request.headers["x-none"] == "a"`:                                gate.RuleFailed,
		`"x-none" in request.headers`:                                     gate.RuleFailed,
		`address.within("192.0.2.0/24")`:                                  gate.OK,
		`address.within(["10.0.0.0/8", "2001:db8::/32"])`:                 gate.RuleFailed,
		`address == "192.0.2.7"`:                                          gate.OK,
		`time.getHours("Europe/Berlin") == 15`:                            gate.OK,
		`time < timestamp("2026-01-01T00:00:00Z")`:                        gate.RuleFailed,
		`cert.not_after > cert.not_before`:                                gate.OK,
		`cert.version == 3 && "clientAuth" in cert.ext_key_usage`:         gate.OK,
		`cert.key_algorithm == "ECDSA"`:                                   gate.OK,
		`tls.version == ""`:                                               gate.OK,
		`cert.extension("2.5.29.14").exists(x, true)`:                     gate.RuleFailed,
		`1 / 0 == 1`:              gate.RuleFailed,
		`person.groups[7] == "x"`: gate.RuleFailed,
		`cert.subject.dn == "emailAddress=alice@example.com,CN=mallory,CN=alice,OU=night,OU=audit,O=Example"`: gate.OK,
	} {
		g, err := gate.New(gate.Config{Paths: []string{"/"}, Way: gate.Way{Rules: []string{rule}}})
		if err != nil {
			t.Errorf("%s: %v", rule, err)
			continue
		}
		if got := g.Decide(s); got != want {
			t.Errorf("%s: %v, want %v", rule, got, want)
		}
	}
}

// TestAttestedKeys reads what the CA notes of a key that a YubiKey attested.
func TestAttestedKeys(t *testing.T) {
	ca := issue(t, nil, authority("Example Client CA"))
	noted := []pkix.Extension{
		pivtest.Extension(3, 5, 7, 4), pivtest.Extension(7, 2, 1, 42), pivtest.Extension(8, 2, 3),
	}
	for name, c := range map[string]struct {
		extensions []pkix.Extension
		rules      map[string]gate.Reason
	}{
		"attested": {noted, map[string]gate.Reason{
			`cert.attested`: gate.OK, `cert.pin_policy == "once" && cert.touch_policy == "cached"`: gate.OK,
			`cert.device_serial == "42"`: gate.OK,
		}},
		"a firmware alone": {noted[:1:1], map[string]gate.Reason{`cert.attested`: gate.RuleFailed}},
		"not attested": {nil, map[string]gate.Reason{
			`cert.attested`: gate.RuleFailed, `cert.touch_policy == "" && cert.device_serial == ""`: gate.OK,
		}},
		"unreadable": {append(noted[:2:2], pivtest.Extension(8, 2, 9)), map[string]gate.Reason{
			`cert.attested`: gate.RuleFailed, `cert.touch_policy == "cached"`: gate.RuleFailed,
		}},
	} {
		s := subject(t, ca, &gate.Holder{Person: postern.Person{Name: "alice"}}, true,
			func(cert *x509.Certificate) { cert.ExtraExtensions = c.extensions })
		for rule, want := range c.rules {
			t.Run(name+": "+rule, func(t *testing.T) {
				g, err := gate.New(gate.Config{Paths: []string{"/"}, Way: gate.Way{Rules: []string{rule}}})
				if err != nil {
					t.Fatal(err)
				}
				if got := g.Decide(s); got != want {
					t.Errorf("%v, want %v", got, want)
				}
			})
		}
	}
}

func TestMistakesInRulesHaveAPlace(t *testing.T) {
	for rule, want := range map[string]string{
		"cert.subject.cn ==":             "line 1, column 19",
		"true &&\n  crt.serial == \"1\"": "line 2, column 3",
		`cert.subjct.cn == "x"`:          "line 1, column 5",
		`cert.serial`:                    "true or false",
		`cert.subject.cn == 5`:           "line 1, column 17",
		`address.within("192.0.2.0/33")`: "line 1, column 16",
		`person.name.matches("(")`:       "line 1, column 21",
		`chain.all(a, chain.all(b, chain.all(c, chain.all(d, a == d))))`: "line 1",
		`chain.all(a, chain.all(b, a.subject.dn.matches(b.subject.dn)))`: "too long",
		strings.Repeat("!", 10000) + "true":                              "size",
		strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100):     "recursion",
	} {
		_, err := gate.CompileRule(rule)
		if err == nil {
			t.Errorf("%.40s compiles", rule)
			continue
		}
		if _, ok := errors.AsType[*gate.RuleError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %s", rule, err, want)
		}
	}
}

// registry is a small Registry.
type registry struct {
	credentials map[string]postern.Credential
	people      []postern.Person
	err         error
}

func (r *registry) Certificate(_ context.Context, serial string, _ *x509.Certificate) (postern.Credential,
	postern.Person, error,
) {
	c, ok := r.credentials[serial]
	if !ok {
		return c, postern.Person{}, or(r.err)
	}
	for _, p := range r.people {
		if p.Name == c.Person {
			return c, p, r.err
		}
	}
	return c, postern.Person{}, or(r.err)
}

func (r *registry) PersonByEmail(_ context.Context, email string) (postern.Person, error) {
	for _, p := range r.people {
		if p.Email == email {
			return p, r.err
		}
	}
	return postern.Person{}, or(r.err)
}

func or(err error) error {
	if err != nil {
		return err
	}
	return postern.Errorf(postern.NotFound, "no such thing")
}

func TestWhoHoldsACertificate(t *testing.T) {
	ca := issue(t, nil, authority("CA"))
	own := func(own bool, emails ...string) *gate.Verified {
		return subject(t, ca, nil, own, func(c *x509.Certificate) { c.EmailAddresses = emails }).Verified
	}
	mine := own(true)
	with := func(cs postern.CredentialStatus, ps postern.PersonStatus) *registry {
		return &registry{
			credentials: map[string]postern.Credential{mine.Leaf().Serial: {Person: "alice", Status: cs}},
			people:      []postern.Person{{Name: "alice", Email: "alice@example.com", Status: ps}},
		}
	}
	active := with(postern.CredentialActive, postern.PersonActive)
	broken := with(postern.CredentialActive, postern.PersonActive)
	broken.err = errors.New("disk on fire")
	for _, c := range []struct {
		name   string
		v      *gate.Verified
		reg    *registry
		want   gate.Reason
		person string
	}{
		{"ours", mine, active, gate.OK, "alice"},
		{"ours, revoked", mine, with(postern.CredentialRevoked, postern.PersonActive), gate.Revoked, "alice"},
		{"ours, disabled", mine, with(postern.CredentialDisabled, postern.PersonActive), gate.Disabled, "alice"},
		{"ours, no status", mine, with("", postern.PersonActive), gate.Disabled, "alice"},
		{"ours, suspended", mine, with(postern.CredentialActive, postern.PersonSuspended), gate.Suspended, "alice"},
		{"ours, removed", mine, with(postern.CredentialActive, postern.PersonRemoved), gate.Suspended, "alice"},
		{"ours, unknown", own(true), active, gate.Unknown, ""},
		{"ours, store unavailable", mine, broken, gate.Unavailable, ""},
		{"another CA's", own(false, "Alice@Example.com"), active, gate.OK, "alice"},
		{
			"another CA's, suspended", own(false, "alice@example.com"), with("", postern.PersonSuspended),
			gate.Suspended,
			"alice",
		},
		{"another CA's, an address of no person", own(false, "bob@example.com"), active, gate.OK, ""},
		{"another CA's, two addresses", own(false, "alice@example.com", "bob@example.com"), active, gate.OK, ""},
		{"another CA's, store unavailable", own(false, "alice@example.com"), broken, gate.Unavailable, ""},
	} {
		h, got := gate.Hold(t.Context(), c.v, c.reg)
		if got != c.want || c.person != "" && h.Name != c.person || c.person == "" && h != nil && h.Name != "" {
			t.Errorf("%s: %v %v", c.name, h, got)
		}
	}
}

func TestPersonsAndGroups(t *testing.T) {
	ca := issue(t, nil, authority("CA"))
	alice := &gate.Holder{Person: postern.Person{Name: "alice", Email: "alice@example.com", Groups: []string{"admin"}}}
	unknown := &gate.Holder{}
	named := func(c *x509.Certificate) { c.EmailAddresses = []string{"dan@example.com"} }
	two := func(c *x509.Certificate) { c.EmailAddresses = []string{"eve@example.com", "dan@example.com"} }
	imitation := func(c *x509.Certificate) { c.RawSubject = rdns(t, "CN", "x/emailAddress=dan@example.com") }
	plain := func(*x509.Certificate) {}
	for _, c := range []struct {
		name    string
		holder  *gate.Holder
		own     bool
		change  func(*x509.Certificate)
		persons []string
		groups  []string
		want    gate.Reason
	}{
		{"by name", alice, true, plain, []string{"alice"}, nil, gate.OK},
		{"by address", alice, true, plain, []string{"Alice@example.com"}, nil, gate.OK},
		{"by group", alice, true, plain, nil, []string{"admin"}, gate.OK},
		{"either", alice, true, plain, []string{"bob"}, []string{"admin"}, gate.OK},
		{"other person", alice, true, plain, []string{"bob"}, []string{"audit"}, gate.NotPerson},
		{"any person", alice, true, plain, nil, nil, gate.OK},
		{
			"address in our own certificate alone", unknown, true, named,
			[]string{"dan@example.com"},
			nil,
			gate.NotPerson,
		},
		{"address in another CA's certificate", unknown, false, named, []string{"dan@example.com"}, nil, gate.OK},
		{"one of two addresses", unknown, false, two, []string{"dan@example.com"}, nil, gate.NotPerson},
		{"address imitated in a name", unknown, false, imitation, []string{"dan@example.com"}, nil, gate.NotPerson},
	} {
		g, err := gate.New(gate.Config{Paths: []string{"/"}, Way: gate.Way{Persons: c.persons, Groups: c.groups}})
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Decide(subject(t, ca, c.holder, c.own, c.change)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDepth(t *testing.T) {
	ca := issue(t, nil, authority("CA"))
	middle := issue(t, ca, authority("Middle"))
	leaf := issue(t, middle, func(*x509.Certificate) {})
	v, reason := gate.NewTrust(nil, []*x509.Certificate{ca.cert},
		nil).Verify([]*x509.Certificate{leaf.cert, middle.cert}, time.Now())
	if reason != gate.OK {
		t.Fatal(reason)
	}
	for depth, want := range map[int]gate.Reason{1: gate.TooDeep, 2: gate.OK, 0: gate.OK} {
		g, err := gate.New(gate.Config{Paths: []string{"/"}, Depth: depth})
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Decide(&gate.Subject{Verified: v, Holder: &gate.Holder{}, Request: &gate.Request{}}); got != want {
			t.Errorf("depth %d: %v, want %v", depth, got, want)
		}
	}
}

func TestNothingDecidedIsARefusal(t *testing.T) {
	g, err := gate.New(gate.Config{Paths: []string{"/"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*gate.Subject{nil, {}, {
		Verified: &gate.Verified{}, Holder: &gate.Holder{},
		Request: &gate.Request{},
	}} {
		if g.Decide(s) == gate.OK {
			t.Errorf("%+v passes", s)
		}
	}
}

// FuzzReadCertificate reads whatever parses as a certificate.
func FuzzReadCertificate(f *testing.F) {
	ca := issue(f, nil, authority("CA"))
	leaf := issue(f, ca, func(c *x509.Certificate) {
		c.RawSubject = rdns(f, "O", "x", "CN", "a,b+c\"", "CN", "#d", "E", "e@example.com")
		c.EmailAddresses = []string{"e@example.com"}
	})
	f.Add(ca.cert.Raw)
	f.Add(leaf.cert.Raw)
	rule, err := gate.New(gate.Config{
		Paths: []string{"/"},
		Way: gate.Way{Rules: []string{
			`cert.subject.cn == "alice" && cert.extension("2.5.29.17").exists(x, x == "y")`,
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
	trust := gate.NewTrust([]*x509.Certificate{ca.cert}, nil, nil)
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		facts, err := gate.ReadCertificate(c)
		if err != nil {
			return
		}
		facts.Emails()
		for _, e := range c.Extensions {
			facts.Extension(e.Id.String())
		}
		if v, reason := trust.Verify([]*x509.Certificate{c}, time.Now()); reason == gate.OK {
			rule.Decide(&gate.Subject{Verified: v, Holder: &gate.Holder{}, Request: &gate.Request{}})
		}
	})
}

// FuzzReadRevocationLists reads whatever is given as a list.
func FuzzReadRevocationLists(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = gate.ReadRevocationLists(data) })
}
