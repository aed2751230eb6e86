package portal

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for _, c := range []struct{ in, want, wrong string }{
		{"www.example.com", "www.example.com", ""},
		{"WWW.Example.COM.", "www.example.com", ""},
		{" *.example.com ", "*.example.com", ""},
		{"bücher.example", "xn--bcher-kva.example", ""},
		{"localhost", "localhost", ""},
		{"10.0.0.1", "10.0.0.1", ""},
		{"[2001:DB8::1]", "2001:db8::1", ""},
		{"::ffff:10.0.0.1", "10.0.0.1", ""},
		{"", "", "not a host name"},
		{"*", "", "wildcard"},
		{"*.com", "", "public domain"},
		{"*.co.uk", "", "public domain"},
		{"*.*.example.com", "", "whole first label"},
		{"w*.example.com", "", "whole first label"},
		{"a..b", "", "not a host name"},
		{"-a.example", "", "not a host name"},
		{"under_score.example", "", "not a host name"},
		{"1.2.3.4.5", "", "not a host name"},
		{"0.0.0.0", "", "not an address"},
		{"fe80::1%eth0", "", "not an address"},
		{"a.example\x00.evil", "", "not a host name"},
		{"a.example/path", "", "not a host name"},
		{"user@a.example", "", "not a host name"},
		{strings.Repeat("a", 64) + ".example", "", "not a host name"},
		{strings.Repeat("a.", 127) + "example", "", "longer than 253"},
	} {
		got, err := ParseName(c.in)
		if got != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("ParseName(%q) = %q, %v; want %q, %q", c.in, got, err, c.want, c.wrong)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.internal", "db.internal", true},
		{".internal", "a.db.internal", true},
		{"*.internal", "*.internal", true},
		{"*.internal", "*.db.internal", true},
		{"*.internal", "internal", false},
		{"*.internal", "db.notinternal", false},
		{"db.internal", "db.internal", true},
		{"db.internal", "a.db.internal", false},
		{"db.internal", "*.db.internal", false},
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "11.1.2.3", false},
		{"10.0.0.0/8", "10.1.2.3.example", false},
		{"10.1.2.3", "10.1.2.3", true},
		{"fd00::/8", "fd12::1", true},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Fatal(c.pattern, err)
		}
		if got := p.Match(c.name); got != c.want {
			t.Errorf("%s matches %s: %v", c.pattern, c.name, got)
		}
		if again, err := ParsePattern(p.String()); err != nil || again != p {
			t.Errorf("%s reads back as %s, %v", p, again, err)
		}
	}
	for _, bad := range []string{"", "*", "*.com", ".co.uk", "a b", "*.*.internal", "10.0.0.0/99"} {
		if _, err := ParsePattern(bad); err == nil {
			t.Errorf("%q is a pattern", bad)
		}
	}
}

// FuzzParseName checks that a name which is accepted fits into a certificate, and that
// parsing it again changes nothing.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{
		"www.example.com", "*.example.com", "bücher.example", "10.0.0.1", "[::1]", "*.co.uk",
		"a\x00b", "xn--a", "١.example", "。.example", ".example.com.", "-",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		if again, err := ParseName(n); err != nil || again != n {
			t.Errorf("%q becomes %q, then %q, %v", s, n, again, err)
		}
		if _, err := netip.ParseAddr(n); err == nil {
			return
		}
		host := strings.TrimPrefix(n, "*.")
		if len(n) > 255 || strings.ContainsAny(host, "*/@: \x00") || net.ParseIP(host) != nil ||
			strings.ToLower(n) != n {
			t.Errorf("%q becomes %q", s, n)
		}
	})
}

// FuzzTokens checks that only tokens and codes are accepted, in any spelling.
func FuzzTokens(f *testing.F) {
	f.Add("abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4567")
	f.Add(strings.Repeat("A", 32))
	f.Add("aaaa-bbbb-cccc-dddd")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := hashToken(s)
		if b, again := hashToken(" " + strings.ToUpper(s) + "\n"); ok && (!again || a != b) {
			t.Errorf("%q has two hashes", s)
		}
		c, isCode := hashCode(s)
		if ok && isCode && a == c {
			t.Errorf("%q is a token and a code", s)
		}
	})
}

func TestTokensAreReadAsTyped(t *testing.T) {
	token := newToken()
	want, ok := hashToken(token)
	if got, ok2 := hashToken(groups(token)); !ok || !ok2 || got != want {
		t.Error("a token with dashes is another one")
	}
	if _, ok := hashToken(token[:31]); ok {
		t.Error("a token that is cut short is accepted")
	}
	codes, kept := newCodes()
	if got, ok := hashCode(strings.ToUpper(strings.ReplaceAll(codes[0], "-", " "))); !ok || got != kept[0].Hash {
		t.Error("a code in capitals is another one")
	}
}

func TestWhatIsNotSeenIsNotPrinted(t *testing.T) {
	for in, want := range map[string]string{
		"phone\u009b31m": "phone?31m", "gpj.\u202eexe": "gpj.?exe", "a\u2066b\u200bc": "a?b?c", "a\x00b\x7fc": "a?b?c",
		"Grün 電話": "Grün 電話",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q", in, got)
		}
		r := &request{Request: &http.Request{PostForm: url.Values{"label": {in}}}}
		if label, err := labelIn(r); (err == nil) != (in == want) {
			t.Errorf("the label %q: %q %v", in, label, err)
		}
	}
}

func TestSentencesKeepNames(t *testing.T) {
	for in, want := range map[string]string{
		"the key is too weak":             "The key is too weak.",
		"www.example.com: not a name":     "www.example.com: not a name.",
		"alice@example.com is taken":      "alice@example.com is taken.",
		`"alice" is no group`:             `"alice" is no group.`,
		"10.0.0.1 is not yours":           "10.0.0.1 is not yours.",
		"über.example is not a name here": "über.example is not a name here.",
	} {
		if got := sentence(errors.New(in)); got != want {
			t.Errorf("sentence(%q) = %q", in, got)
		}
	}
}

func TestSentencesAndFileNames(t *testing.T) {
	for in, want := range map[string]string{
		"Hello\r\nBcc: eve@example.com": "Hello  Bcc: eve@example.com",
		"a\u2028b\x85c":                 "a b\ufffdc",
	} {
		if got := oneLine(in); strings.ContainsAny(got, "\r\n\u2028") ||
			!strings.Contains(want, "\ufffd") && got != want {
			t.Errorf("oneLine(%q) = %q", in, got)
		}
	}
	for _, c := range []Certificate{
		{Person: "dan", Label: `"\..\"; x="`},
		{Server: true, Names: []string{"*.example.org"}},
	} {
		if name := fileName(c); strings.ContainsAny(name, `"\/;*`) || name == "" {
			t.Errorf("file name %q", name)
		}
	}
}
