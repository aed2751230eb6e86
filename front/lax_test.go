package front

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
)

// What the sites of the tests answer.
const (
	secret = "SECRET-BYTES"
	public = "PUBLIC-BYTES"
)

// newLaxApp is an application that reads paths as carelessly as any: it decodes
// twice, cuts at NUL and at semicolons, turns backslashes, drops dots and spaces at the
// ends of names and folds case. What it then finds under /wp-admin or
// /wp-login.php it gives away. It also prints the headers that it got.
func newLaxApp(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range laxReadings(r.RequestURI) {
			if strings.HasPrefix(p, "/wp-admin") || strings.HasPrefix(p, "/wp-login.php") {
				fmt.Fprintln(w, secret)
				_ = r.Header.Write(w)
				return
			}
		}
		fmt.Fprintln(w, public)
		_ = r.Header.Write(w)
	}))
	t.Cleanup(s.Close)
	return s
}

// laxReadings returns the paths that a careless application may take a request
// target for.
func laxReadings(target string) []string {
	if u, err := url.Parse(target); err == nil && u.Scheme != "" && u.Host != "" {
		target = u.RequestURI()
	}
	raw, _, _ := strings.Cut(target, "?")
	once := unescape(raw)
	twice := unescape(once)
	var out []string
	for _, p := range []string{raw, once, twice} {
		p = strings.ReplaceAll(p, `\`, "/")
		p, _, _ = strings.Cut(p, "\x00")
		cut, _, _ := strings.Cut(p, ";")
		question, _, _ := strings.Cut(p, "?")
		var names []string
		for name := range strings.SplitSeq(p, "/") {
			name, _, _ = strings.Cut(name, ";")
			if name != "." && name != ".." {
				name = strings.Trim(name, ". ")
			}
			names = append(names, name)
		}
		for _, q := range []string{p, cut, question, strings.Join(names, "/")} {
			out = append(out, strings.ToLower(path.Clean("/"+q)))
		}
	}
	return out
}

// unescape decodes what can be decoded and leaves the rest.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			var c byte
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02x", &c); err == nil {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// TestTheLaxAppIsLax holds the application to its carelessness: without a
// guard it gives every spelling away.
func TestTheLaxAppIsLax(t *testing.T) {
	app := newLaxApp(t)
	for _, target := range []string{
		"/wp-admin/", "//wp-admin", "/x/../wp-admin", "/wp-admin;x", "/x/..;/wp-admin/", "/wp-admin%00.html",
		"/WP-ADMIN/", "/%77p-admin",
		"/%2577p-admin", "/x%5c..%5cwp-admin", "/wp-admin%20/", "/wp-admin./", "/;/wp-admin", "/wp-login.php%3fx",
		"/wp-login.php/y",
	} {
		c, err := net.Dial("tcp", app.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := http1(c, attempt{method: "GET", proto: "1.1", host: "x", target: target})
		c.Close()
		if err != nil || !strings.Contains(got.body, secret) {
			t.Errorf("%s: %v %s", target, err, got.body)
		}
	}
}
