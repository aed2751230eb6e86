package front

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestNoTunnelLeadsPastTheGuard asks at a public path for other protocols, in
// which a client could send requests that no guard judges.
func TestNoTunnelLeadsPastTheGuard(t *testing.T) {
	h := newRig(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if up := strings.Join(r.Header["Upgrade"], ","); up != "" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n%s",
				up, map[bool]string{true: public, false: secret}[strings.EqualFold(up, "websocket")])
			return
		}
		_, _ = io.WriteString(w, public)
	}))
	t.Cleanup(app.Close)
	https, _ := h.serve(t, "localhost:HTTPS {\n\trequire /guarded* {\n\t\tperson alice\n\t}\n\treverse_proxy "+app.URL+
		"\n}\n")
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{"Upgrade: websocket"}, 101},
		{[]string{"Upgrade: WebSocket"}, 101},
		{[]string{"Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, 200},
		{[]string{"Upgrade: H2C"}, 200},
		{[]string{"Upgrade: HTTP/2.0"}, 200},
		{[]string{"Upgrade: TLS/1.0"}, 200},
		{[]string{"Upgrade: websocket, h2c"}, 200},
		{[]string{"Upgrade: websocket", "Upgrade: h2c"}, 200},
		{[]string{"Upgrade: h2c", "Upgrade: websocket"}, 200},
		{[]string{"Upgrade: "}, 200},
	} {
		got, err := h.try(https, attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
			target: "/public", headers: append(c.headers, "Connection: Upgrade"),
		})
		if got.status != c.status || strings.Contains(got.body, secret) {
			t.Errorf("%q: %d %q %v", c.headers, got.status, got.body, err)
		}
	}
}

// TestForgedTrailers sends identities behind the body, where some servers take
// them for headers.
func TestForgedTrailers(t *testing.T) {
	h := newRig(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, r.Header, r.Trailer)
	}))
	t.Cleanup(app.Close)
	site := "%s:HTTPS {\n\t%s\n\treverse_proxy " + app.URL + "\n}\n"
	https, _ := h.serve(t, fmt.Sprintf(site, "localhost",
		"require /guarded* {\n\t\tperson alice\n\t}")+fmt.Sprintf(site, "open.localhost", ""))
	for _, host := range []string{"localhost", "open.localhost"} {
		for _, proto := range []string{"1.1", "2"} {
			c := h.client1(t, nil, func(c *tls.Config) { c.ServerName = host })
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = proto == "2"
			r, err := http.NewRequestWithContext(t.Context(), "POST", fmt.Sprintf("https://%s:%d/public", host, https),
				io.LimitReader(strings.NewReader("body"), 9))
			if err != nil {
				t.Fatal(err)
			}
			r.Trailer = http.Header{"X-Fine": {"fine"}, "Postern-Person": {"forged"}, "Client-Cert": {"forged"}}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if strings.Contains(string(body), "forged") || strings.Contains(string(body), "Postern-") ||
				!strings.Contains(string(body), "X-Fine:[fine]") {
				t.Errorf("%s over HTTP/%s: %s", host, proto, body)
			}
		}
		// HTTP/1.1 lets a client send more than it has announced.
		for _, announced := range []string{"Trailer: X-Fine\r\n", "Trailer: Postern-Person\r\n", ""} {
			config := h.clientConfig(nil)
			config.ServerName = host
			c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", https), config)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c,
				"POST /public HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%s\r\n4\r\n"+
					"body\r\n0\r\nX-Fine: fine\r\nClient-Cert: forged\r\nPostern-Person: forged\r\n\r\n", host,
				announced)
			body, err := io.ReadAll(c)
			c.Close()
			if err != nil || !strings.HasPrefix(string(body), "HTTP/1.1 200 ") ||
				strings.Contains(string(body), "forged") || strings.Contains(string(body), "Postern-") {
				t.Errorf("%s, %q: %v %s", host, announced, err, body)
			}
		}
	}
}

// TestATemplatesOwnRequestHasNoAddress includes guarded pages into a public one,
// by requests that come from nowhere, and look to Caddy as if from this host.
func TestATemplatesOwnRequestHasNoAddress(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/near/index.html", secret)
	h.file(t, "www/far/index.html", secret)
	h.file(t, "www/not/index.html", secret)
	h.file(t, "www/alice/index.html", secret)
	h.file(t, "www/get/index.html", public)
	h.file(t, "www/page.html", `{{httpInclude (.Req.URL.Query.Get "of")}}`)
	guard := "\trequire %s* {\n\t\tanyone\n\t\trule `%s`\n\t}\n"
	https, _ := h.serve(t,
		"localhost:HTTPS {\n\troot * DIR/www\n\ttemplates\n\tfile_server\n\trequire /alice* {\n\t\tperson alice\n\t}\n"+
			fmt.Sprintf(guard, "/near", `address.within("127.0.0.1/32")`)+fmt.Sprintf(guard, "/far",
			`address == "192.0.2.1"`)+
			fmt.Sprintf(guard, "/not", `address != "127.0.0.2"`)+fmt.Sprintf(guard, "/get", `request.method == "GET"`)+
			"}\n", trustingThisHost(t))
	alice := h.person(t, "alice")
	current().poll(t.Context())
	c := h.client1(t, alice)
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		return from.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", https))
	}
	for path, open := range map[string]string{"/get/": public, "/near/": "", "/far/": "", "/not/": "", "/alice/": ""} {
		r, err := http.NewRequestWithContext(t.Context(), "GET",
			fmt.Sprintf("https://localhost:%d/page.html?of=%s", https, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if strings.Contains(string(body), secret) || !strings.Contains(string(body), open) {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	h.flush(t)
	if !slices.ContainsFunc(h.events, func(e postern.Event) bool {
		return e.Kind == postern.EventAccessRefused && e.Object == "/near*" && e.Address == ""
	}) {
		t.Errorf("on the timeline: %+v", h.events)
	}
}

// trustingThisHost has every server trust X-Forwarded-For from this host.
func trustingThisHost(t *testing.T) func([]byte) []byte {
	return func(config []byte) []byte {
		var c struct {
			Apps struct {
				HTTP struct{ Servers map[string]any }
			}
		}
		err := json.Unmarshal(config, &c)
		for name := range c.Apps.HTTP.Servers {
			if err == nil {
				config, err = with(config, "apps", "http", "servers", name, "trusted_proxies",
					map[string]any{"source": "static", "ranges": []string{"127.0.0.1/32"}})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
}

// TestConditionsOnARequestOpenNothing asks in ways that are answered by less, or
// otherwise, than by a page.
func TestConditionsOnARequestOpenNothing(t *testing.T) {
	h, https, _ := attackedRig(t)
	bob := h.person(t, "bob")
	var attempts []attempt
	for _, headers := range [][]string{
		{"Expect: 100-continue", "Content-Length: 4"},
		{"Range: bytes=0-5"},
		{"Range: bytes=0-1,3-4", "If-Range: x"},
		{"If-None-Match: *"},
		{"If-Match: *"},
		{"If-Modified-Since: Mon, 01 Jan 2035 00:00:00 GMT"},
		{"If-Unmodified-Since: Mon, 01 Jan 2035 00:00:00 GMT"},
		{"Cache-Control: only-if-cached"},
		{"Accept-Encoding: gzip, br, zstd"},
		{"Max-Forwards: 0"},
		{"Early-Data: 1"},
		{"X-Forwarded-For: 127.0.0.1"},
		{"X-Http-Method-Override: GET"},
		{"Host: open.localhost"},
		{":protocol: websocket"},
		{"X-Forwarded-Host: open.localhost"},
		{"Accept: application/json"},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"} {
			for _, tr := range transports {
				if headers[0][0] == ':' && tr.proto != "2" || strings.HasPrefix(headers[0], "Host:") &&
					tr.proto != "2" {
					continue
				}
				for _, host := range []string{"localhost", "proxy.localhost"} {
					attempts = append(attempts, attempt{
						proto: tr.proto, version: tr.version, sni: host, host: host,
						target: "/wp-admin/", who: bob, method: method, headers: headers,
					})
				}
			}
		}
	}
	h.sweep(t, https, attempts, func(a attempt, got answer, err error) string {
		if got.status == http.StatusOK || got.status == http.StatusNotModified ||
			got.status == http.StatusPartialContent {
			return "answered"
		}
		return leaks(a, got, err)
	})
}

// TestTemplatesRenderMarkdown renders Markdown by Caddy's templates: a block of code has
// its language as a class.
func TestTemplatesRenderMarkdown(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/page.html", `{{markdown "# Go\n\n~~~go\nx < y\n~~~\n"}}`)
	https, _ := h.serve(t, "localhost:HTTPS {\n\troot * DIR/www\n\ttemplates\n\tfile_server\n}\n")
	status, page := get(t, h.client1(t, nil), fmt.Sprintf("https://localhost:%d/page.html", https))
	for _, want := range []string{`<h1 id="go">Go</h1>`, `<code class="language-go">x &lt; y`} {
		if status != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%d %s", status, page)
		}
	}
}
