package gate_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/gate"
)

// The tags of a GeneralName.
const (
	tagEmail     = 1
	tagDNS       = 2
	tagDirectory = 4
	tagURI       = 6
	tagIP        = 7
	tagID        = 8
)

// name is a GeneralName of a test, or the base of a subtree.
type name struct {
	tag   int
	value []byte
}

func (n name) der() asn1.RawValue {
	return asn1.RawValue{
		Class: asn1.ClassContextSpecific, Tag: n.tag, Bytes: n.value,
		IsCompound: n.tag == tagDirectory,
	}
}

// constrain gives a CA name constraints.
func constrain(t testing.TB, critical bool, permitted, excluded []name) func(*x509.Certificate) {
	t.Helper()
	type subtree struct{ Base asn1.RawValue }
	var v struct {
		Permitted []subtree `asn1:"optional,tag:0"`
		Excluded  []subtree `asn1:"optional,tag:1"`
	}
	for _, n := range permitted {
		v.Permitted = append(v.Permitted, subtree{n.der()})
	}
	for _, n := range excluded {
		v.Excluded = append(v.Excluded, subtree{n.der()})
	}
	value := marshal(t, v)
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
			Id:       asn1.ObjectIdentifier{2, 5, 29, 30},
			Critical: critical, Value: value,
		})
	}
}

// named gives a certificate a subject and alternative names.
func named(t testing.TB, subject []byte, alt ...name) func(*x509.Certificate) {
	t.Helper()
	var names []asn1.RawValue
	for _, n := range alt {
		names = append(names, n.der())
	}
	return func(c *x509.Certificate) {
		c.RawSubject = subject
		if len(names) > 0 {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
				Id:    asn1.ObjectIdentifier{2, 5, 29, 17},
				Value: marshal(t, names),
			})
		}
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// subjectOf returns a DN whose attributes are strings of the given types.
func subjectOf(t testing.TB, parts ...string) []byte {
	t.Helper()
	oids := map[string]asn1.ObjectIdentifier{"CN": {2, 5, 4, 3}, "O": {2, 5, 4, 10}, "C": {2, 5, 4, 6}, "E": emailOID}
	var seq []asn1.RawValue
	for _, p := range parts {
		kind, text, _ := strings.Cut(p, "=")
		tag := asn1.TagUTF8String
		switch {
		case kind == "E":
			tag = asn1.TagIA5String
		case strings.HasSuffix(kind, "p"):
			kind, tag = strings.TrimSuffix(kind, "p"), asn1.TagPrintableString
		case kind == "Eu":
			kind = "E"
		}
		ava := marshal(t, struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}{oids[kind], asn1.RawValue{Tag: tag, Bytes: []byte(text)}})
		seq = append(seq, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: ava})
	}
	return marshal(t, seq)
}

func email(s string) name { return name{tagEmail, []byte(s)} }
func dns(s string) name   { return name{tagDNS, []byte(s)} }
func uri(s string) name   { return name{tagURI, []byte(s)} }
func ip(b ...byte) name   { return name{tagIP, b} }

// TestNamesOutsideConstraintsAreRefused tries each kind of name below a CA
// that may not issue it.
func TestNamesOutsideConstraintsAreRefused(t *testing.T) {
	root := issue(t, nil, authority("Root"))
	org := name{tagDirectory, subjectOf(t, "O=Zoo")}
	for _, c := range []struct {
		name                string
		permitted, excluded []name
		subject             []byte
		alt                 []name
		want                gate.Reason
	}{
		{
			"an address in the subject, outside",
			[]name{email("zoo.example")},
			nil, subjectOf(t, "E=a@evil.example"),
			nil, gate.Constrained,
		},
		{
			"an address in the subject, inside",
			[]name{email("zoo.example")},
			nil, subjectOf(t, "E=a@zoo.example"), nil,
			gate.OK,
		},
		{
			"an address in the subject, other names beside",
			[]name{email("zoo.example")},
			nil,
			subjectOf(t, "E=a@evil.example"),
			[]name{email("a@zoo.example")},
			gate.Constrained,
		},
		{
			"an address in the subject as another string",
			[]name{dns("zoo.example")},
			nil,
			subjectOf(t, "Eu=a@evil.example"), nil, gate.Constrained,
		},
		{
			"an address below a domain",
			[]name{email(".zoo.example")},
			nil, subjectOf(t, "E=a@x.zoo.example"), nil,
			gate.OK,
		},
		{
			"the domain itself",
			[]name{email(".zoo.example")},
			nil, subjectOf(t, "E=a@zoo.example"), nil,
			gate.Constrained,
		},
		{"one mailbox", []name{email("a@zoo.example")}, nil, subjectOf(t, "E=b@zoo.example"), nil, gate.Constrained},
		{
			"an excluded address in the subject", nil,
			[]name{email("zoo.example")},
			subjectOf(t, "E=a@ZOO.example"), nil,
			gate.Constrained,
		},
		{
			"an alternative address, outside",
			[]name{email("zoo.example")},
			nil, subjectOf(t, "CN=a"),
			[]name{email("a@evil.example")},
			gate.Constrained,
		},
		{"a DN outside", []name{org}, nil, subjectOf(t, "O=Evil", "CN=a"), nil, gate.Constrained},
		{"a DN inside", []name{org}, nil, subjectOf(t, "O=Zoo", "CN=a"), nil, gate.OK},
		{"a DN inside, written otherwise", []name{org}, nil, subjectOf(t, "Op= zOO ", "CN=a"), nil, gate.OK},
		{"an excluded DN, written otherwise", nil, []name{org}, subjectOf(t, "Op=zoo", "CN=a"), nil, gate.Constrained},
		{"a DN that only begins alike", []name{org}, nil, subjectOf(t, "O=Zoology", "CN=a"), nil, gate.Constrained},
		{
			"an alternative DN outside",
			[]name{org},
			nil, subjectOf(t, "O=Zoo"),
			[]name{{tagDirectory, subjectOf(t, "O=Evil")}},
			gate.Constrained,
		},
		{
			"a host as common name",
			[]name{dns("zoo.example")},
			nil, subjectOf(t, "CN=www.evil.example"), nil,
			gate.Constrained,
		},
		{"a person as common name", []name{dns("zoo.example")}, nil, subjectOf(t, "CN=Ann Other"), nil, gate.OK},
		{
			"a DNS name outside",
			[]name{dns("zoo.example")},
			nil, subjectOf(t, "CN=a"),
			[]name{dns("evil.example")},
			gate.Constrained,
		},
		{
			"a URI outside",
			[]name{uri("zoo.example")},
			nil, subjectOf(t, "CN=a"),
			[]name{uri("https://evil.example/a")},
			gate.Constrained,
		},
		{
			"an address of the network outside",
			[]name{ip(10, 0, 0, 0, 255, 0, 0, 0)},
			nil, subjectOf(t, "CN=a"),
			[]name{ip(11, 0, 0, 1)},
			gate.Constrained,
		},
		{
			"an identifier below a constraint of its kind",
			[]name{{tagID, []byte{42}}},
			nil, subjectOf(t, "CN=a"),
			[]name{{tagID, []byte{42}}},
			gate.Constrained,
		},
	} {
		for _, critical := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, critical %v", c.name, critical), func(t *testing.T) {
				sub := issue(t, root, func(x *x509.Certificate) {
					authority("Sub CA")(x)
					constrain(t, critical, c.permitted, c.excluded)(x)
				})
				between := issue(t, sub, func(x *x509.Certificate) {
					authority("")(x)
					x.RawSubject = subjectOf(t, "O=Zoo", "CN=Between")
				})
				leaf := issue(t, between, named(t, c.subject, c.alt...))
				trust := gate.NewTrust(nil, []*x509.Certificate{root.cert}, nil)
				_, got := trust.Verify([]*x509.Certificate{leaf.cert, between.cert, sub.cert}, time.Now())
				if got != c.want && (c.want == gate.OK || got != gate.Unusable || c.permitted == nil ||
					c.permitted[0].tag != tagID) {
					t.Errorf("through two CAs: %v, want %v", got, c.want)
				}
				leaf = issue(t, sub, named(t, c.subject, c.alt...))
				trust = gate.NewTrust(nil, []*x509.Certificate{sub.cert}, nil)
				if _, got := trust.Verify([]*x509.Certificate{leaf.cert}, time.Now()); got != c.want {
					t.Errorf("by the trusted CA itself: %v, want %v", got, c.want)
				}
			})
		}
	}
}

var chainCount = flag.Int("chains", 4000, "how many chains OpenSSL judges, too")

// TestNeverWiderThanOpenSSL makes chains with constraints of every kind, at each
// depth, and lets OpenSSL judge them, too.
func TestNeverWiderThanOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(14, 1))
	passed, stricter := 0, 0
	const leaves = 50
	for n := 0; n < *chainCount; n += leaves {
		g := newGenerated(t, r, leaves)
		theirs := g.openssl(t)
		for i, ours := range g.ours {
			switch {
			case ours && !theirs[i]:
				t.Errorf("chain %d.%d passes, though not for OpenSSL: %s", n, i, g.words(i))
			case ours:
				passed++
			case theirs[i]:
				stricter++
			}
		}
	}
	t.Logf("%d chains: %d pass, %d pass for OpenSSL alone", *chainCount, passed, stricter)
	if passed < *chainCount/20 || passed > *chainCount*19/20 || stricter > *chainCount/10 {
		t.Errorf("of %d chains %d pass here and %d for OpenSSL alone: they try little", *chainCount, passed, stricter)
	}
}

// generated is a root, a CA and another below it, each constrained or not, and
// certificates of the last.
type generated struct {
	dir     string
	root    *signer
	between []*signer
	files   []string
	leaves  []*signer
	ours    []bool
}

func newGenerated(t *testing.T, r *rand.Rand, leaves int) *generated {
	t.Helper()
	g := &generated{dir: t.TempDir()}
	ca := func(by *signer) *signer {
		return issue(t, by, func(c *x509.Certificate) {
			authority("")(c)
			c.RawSubject = subjectOf(t, pick(r, "O=Zoo", "O=Zoo", "O=Zoo", "Op=zoo", "O=Evil"),
				fmt.Sprintf("CN=CA %d", c.SerialNumber))
			if r.IntN(3) > 0 {
				var permitted, excluded []name
				for range r.IntN(3) {
					permitted = append(permitted, randomBase(t, r))
				}
				for range r.IntN(2) {
					excluded = append(excluded, randomBase(t, r))
				}
				if len(permitted)+len(excluded) > 0 {
					constrain(t, r.IntN(2) == 0, permitted, excluded)(c)
				}
			}
		})
	}
	g.root = ca(nil)
	by := g.root
	for range r.IntN(3) {
		by = ca(by)
		g.between = append(g.between, by)
	}
	trust := gate.NewTrust(nil, []*x509.Certificate{g.root.cert}, nil)
	for i := range leaves {
		var parts []string
		for range r.IntN(4) {
			parts = append(parts, pick(r, "O=Zoo", "Op=ZOO", "O=Zoo ", "O=Evil", "CN=a", "CN=www.zoo.example",
				"CN=x.evil.example", "CN=a b",
				"E=a@zoo.example", "E=b@x.zoo.example", "E=a@evil.example", "E=@zoo.example", "E=nobody",
				"Eu=a@zoo.example"))
		}
		var alt []name
		for range r.IntN(3) {
			alt = append(alt, randomName(t, r))
		}
		leaf := issue(t, by, named(t, subjectOf(t, parts...), alt...))
		shown := []*x509.Certificate{leaf.cert}
		for _, c := range g.between {
			shown = append(shown, c.cert)
		}
		_, reason := trust.Verify(shown, time.Now())
		g.leaves, g.ours = append(g.leaves, leaf), append(g.ours, reason == gate.OK)
		g.files = append(g.files, g.write(t, fmt.Sprintf("%d.pem", i), leaf))
	}
	return g
}

func (g *generated) write(t *testing.T, file string, signers ...*signer) string {
	t.Helper()
	var b bytes.Buffer
	for _, s := range signers {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(g.dir, file)
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// openssl returns which leaves OpenSSL accepts.
func (g *generated) openssl(t *testing.T) []bool {
	t.Helper()
	args := []string{"verify", "-purpose", "sslclient", "-CAfile", g.write(t, "root.pem", g.root)}
	if len(g.between) > 0 {
		args = append(args, "-untrusted", g.write(t, "between.pem", g.between...))
	}
	out, _ := exec.Command("openssl", append(args, g.files...)...).Output() // it fails if one does
	accepted := make([]bool, len(g.files))
	answers := strings.Split(string(out), "\n")
	for i, f := range g.files {
		for _, line := range answers {
			accepted[i] = accepted[i] || line == f+": OK"
		}
	}
	return accepted
}

// words describes a chain, for the messages of failed tests.
func (g *generated) words(i int) string {
	var b strings.Builder
	for _, s := range append([]*signer{g.leaves[i], g.root}, g.between...) {
		fmt.Fprintf(&b, "\n%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw}))
	}
	return b.String()
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

func randomBase(t testing.TB, r *rand.Rand) name {
	switch r.IntN(12) {
	case 0, 1, 2:
		return email(pick(r, "zoo.example", "zoo.example", ".zoo.example", "a@zoo.example", "a@ZOO.example",
			"A@zoo.example", "", "evil.example"))
	case 3, 4:
		return dns(pick(r, "zoo.example", "zoo.example", ".zoo.example", "www.zoo.example", "", "evil.example",
			"example"))
	case 5:
		return uri(pick(r, "zoo.example", ".zoo.example", "www.zoo.example", "evil.example"))
	case 6, 7:
		return ip([][]byte{
			{10, 0, 0, 0, 255, 0, 0, 0},
			{0, 0, 0, 0, 0, 0, 0, 0},
			{10, 1, 0, 0, 255, 255, 0, 0},
			make([]byte, 32),
		}[r.IntN(4)]...)
	case 8:
		return name{tagID, []byte{42, 3}}
	default:
		return name{tagDirectory, [][]byte{
			subjectOf(t, "O=Zoo"), subjectOf(t, "O=Zoo"), subjectOf(t, "Op=zoo"),
			subjectOf(t), subjectOf(t, "O=Evil"),
		}[r.IntN(5)]}
	}
}

func randomName(t testing.TB, r *rand.Rand) name {
	switch r.IntN(7) {
	case 0, 1:
		return email(pick(r, "a@zoo.example", "A@zoo.example", "b@ZOO.example", "a@x.zoo.example", "a@evil.example"))
	case 2, 3:
		return dns(pick(r, "zoo.example", "www.ZOO.example", "*.zoo.example", "notzoo.example", "evil.example"))
	case 4:
		return uri(pick(r, "https://zoo.example/", "https://www.zoo.example:8443/x",
			"https://evil.example?x=.zoo.example",
			"https://evil.example#.zoo.example", "urn:zoo:a", "https://a@zoo.example/", "https://10.0.0.1/"))
	case 5:
		return ip([][]byte{{10, 0, 0, 1}, {10, 1, 2, 3}, {11, 0, 0, 1}, append(make([]byte, 15), 1)}[r.IntN(4)]...)
	}
	if r.IntN(3) == 0 {
		return name{tagID, []byte{42, 3, 4}}
	}
	return name{tagDirectory, [][]byte{
		subjectOf(t, "O=Zoo", "CN=x"), subjectOf(t, "Op=zOO"),
		subjectOf(t, "O=Evil"),
	}[r.IntN(3)]}
}
