package gate_test

import (
	"net/url"
	"testing"

	"github.com/postern-project/postern/gate"
)

// read says how a request path is taken: "400", "guarded" or "public".
func read(t testing.TB, p gate.Paths, raw string) string {
	t.Helper()
	u, err := url.ParseRequestURI(raw)
	if err != nil {
		return "400"
	}
	var r gate.Readings
	switch {
	case !gate.ReadPath(u, &r):
		return "400"
	case p.Cover(&r):
		return "guarded"
	}
	return "public"
}

func TestSpellingsOfAGuardedPath(t *testing.T) {
	paths, err := gate.CompilePaths([]string{
		"/wp-admin*", "/wp-login.php*", "/reports/", "/team/index.html",
		"/straße",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, spellings := range map[string][]string{
		"guarded": {
			"/wp-admin", "/wp-admin/", "/wp-admin/x", "//wp-admin", "///wp-admin//", "/./wp-admin", "/x/../wp-admin/",
			"/wp-admin/../x/../wp-admin", "/WP-Admin/", "/wp%2dadmin", "/%77p-admin", "/wp-admin;x=1", "/wp-adminx",
			"/wp-login.php/", "/wp-login.php/a/b", "/wp-login.php;jsessionid=1", "/;/wp-admin", "/x;/../wp-admin",
			"/x//../../wp-admin", "/wp-admin//../x", "/wp-admin/../public", "/wp-admin?x", "http://h/wp-admin",
			"/reports", "/reports/a", "/reports;x", "/REPORTS", "/team/index.html", "/team/", "/team", "/team//",
			"/w%E2%80%8Bp-admin", "/%EF%BD%97p-admin", "/STRASSE", "/wp-adm%C4%B1n/../wp-admin", "/wp-%61dmin",
		},
		"400": {
			"/x/..;/wp-admin/", "/wp-admin%00", "/wp-admin%20/", "/wp-admin./", "/wp-admin%2f", "/x/%2e%2e/wp-admin",
			"/x/..%2fwp-admin",
			"/wp-admin%5cx", `/x\..\wp-admin`, "/wp-login.php%3fx", "/%2577p-admin", "/%u0077p-admin",
			"/%25u0077p-admin", "/wp-admin%0a",
			"/wp-admin%7f", "/%c0%afwp-admin", "/%ff", "/x%23/wp-admin", "/wp-admin::$DATA", "/ wp-admin",
			"/%20wp-admin",
			"/wp-admin%", "/x/%EF%BC%8E%EF%BC%8E/wp-admin", "/%EF%BC%8Fwp-admin", "/.;/wp-admin", "*", "/...",
			"/x%252e",
		},
		"public": {
			"/", "/index.html", "/blog/2024/a-post.html", "/Report", "/report", "/wp-content/x.PNG", "/a;b=c/d",
			"/100%25-wool",
			"/caf%C3%A9", "/a%20b", "/.well-known/x", "/~dan/", "/a//b", "/team/other.html", "/%E6%97%A5%E6%9C%AC",
			"/a+b", "/@x", "/a:b",
			"/%D0%B9%D1%91",
		},
	} {
		for _, s := range spellings {
			if got := read(t, paths, s); got != want {
				t.Errorf("%s is %s, want %s", s, got, want)
			}
		}
	}
}

func TestPathsThatCannotGuard(t *testing.T) {
	for _, p := range []string{"", "wp-admin", "/a*b", "/a%20", "/a//b", "/a/../b", "/a?x", `/a\b`, "/a;b", "/a\x00"} {
		if _, err := gate.CompilePaths([]string{p}, nil); err == nil {
			t.Errorf("%q compiles", p)
		}
	}
	if p, err := gate.CompilePaths([]string{"/"}, nil); err != nil || read(t, p, "/x/y") != "guarded" {
		t.Error("/ does not cover everything", err)
	}
}

func TestCommonPathsCostNoAllocation(t *testing.T) {
	p, _ := gate.CompilePaths([]string{"/wp-admin*", "/reports/index.html"}, nil)
	u := &url.URL{Path: "/blog/2024/a-post.html"}
	var r gate.Readings
	if n := testing.AllocsPerRun(100, func() { gate.ReadPath(u, &r); p.Cover(&r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzReadPath holds that no spelling which a cleaning, decoding server would
// take for the guarded path is taken for public.
func FuzzReadPath(f *testing.F) {
	for _, s := range []string{
		"/wp-admin", "//wp-admin", "/x/../wp-admin", "/%77p-admin", "/x;/wp-admin",
		"/w%E2%80%8Bp-admin", "/a/b",
	} {
		f.Add(s)
	}
	paths, err := gate.CompilePaths([]string{"/wp-admin"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		for name, reading := range lax(u) {
			if reading && read(t, paths, raw) == "public" {
				t.Errorf("%q is public, and %s", raw, name)
			}
		}
	})
}
