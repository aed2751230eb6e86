package front

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

const toldSites = `
localhost:HTTPS {
	require /in* {
		person alice
		header_up X-Subject ` + "`cert.subject.cn`" + `
		header_up SUBJECT_ORG ` + "`cert.subject.o`" + `
		header_up X-Unit ` + "`cert.subject.ou`" + `
		or anyone {
			method POST
		}
	}
	require /in/deeper* {
		header_up X-Subject ` + "`\"deeper \" + cert.subject.cn + \" by \" + request.method`" + `
	}
	rewrite /alias /in/x
	reverse_proxy APP
}
php.localhost:HTTPS {
	root * DIR
	require /in* {
		header_up X-Subject ` + "`cert.subject.cn`" + `
	}
	php_fastcgi unix/SOCKET
}
open.localhost:HTTPS {
	reverse_proxy APP
}
http://localhost:HTTP {
	reverse_proxy APP
}
`

// TestTheApplicationIsToldByHeaders sends requests that bring the guard's
// headers along, in every spelling, to guarded and other pages, and reads what
// arrives.
func TestTheApplicationIsToldByHeaders(t *testing.T) {
	h := newRig(t)
	for _, file := range []string{"in/php.php", "php.php"} {
		h.file(t, file, `<?php echo "X-Subject: ", $_SERVER['HTTP_X_SUBJECT'] ?? 'none', "\r\n";`)
	}
	https, plain := h.serve(t, strings.NewReplacer("APP", newLaxApp(t).URL, "SOCKET",
		posterntest.PHP(t)).Replace(toldSites))
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	current().poll(t.Context())
	spellings := []string{
		"X-Subject: forged", "x_subject: forged", "X.Subject: forged", "X-SUBJECT: forged", "Subject-Org: forged",
		"SUBJECT_ORG: forged", "X-Unit: forged",
	}
	for _, c := range []struct {
		method, host, target string
		who                  *holder
		subject, org         string // "" if none is sent
	}{
		{"GET", "localhost", "/in/", alice, "alice", "Example"},
		{"GET", "localhost", "/alias", alice, "alice", "Example"},
		{"POST", "localhost", "/in/", alice, "alice", "Example"},
		{"POST", "localhost", "/in/", nil, "", ""},
		{"POST", "localhost", "/in/", bob, "", ""},
		{"GET", "localhost", "/in/deeper", alice, "deeper alice by GET", "Example"},
		{"GET", "php.localhost", "/in/php.php", alice, "alice", ""},
		{"GET", "php.localhost", "/php.php", alice, "none", ""},
		{"GET", "localhost", "/public", alice, "", ""},
		{"GET", "open.localhost", "/in/", alice, "", ""},
	} {
		for _, tr := range transports {
			a := attempt{
				proto: tr.proto, version: tr.version, sni: c.host, host: c.host, method: c.method,
				target: c.target, who: c.who,
			}
			for _, s := range spellings {
				if tr.proto == "2" {
					s = lowerName(s)
				}
				a.headers = append(a.headers, s)
			}
			got, err := h.try(https, a)
			if err != nil || got.status != 200 || strings.Contains(got.body, "forged") ||
				headerIn(got.body, "X-Subject") != c.subject || headerIn(got.body, "Subject_org") != c.org {
				t.Errorf("HTTP/%s %s %s%s: %d %v\n%s", tr.proto, c.method, c.host, c.target, got.status, err, got.body)
			}
		}
	}
	got, err := h.try(plain, attempt{proto: "1.1", host: "localhost", target: "/in/", headers: spellings})
	if err != nil || got.status != 200 || strings.Contains(got.body, "forged") {
		t.Errorf("plain HTTP: %d %v\n%s", got.status, err, got.body)
	}
	a := attempt{
		proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost", target: "/in/",
		who: alice, headers: []string{"Connection: x-subject"},
	}
	if got, err := h.try(https, a); err != nil || headerIn(got.body, "X-Subject") != "alice" {
		t.Errorf("a client names the header as one of the connection: %v\n%s", err, got.body)
	}
}

// headerIn returns a header's value in what the application printed.
func headerIn(body, name string) string {
	_, rest, _ := strings.Cut(body, "\n"+name+": ")
	if v, ok := strings.CutPrefix(body, name+": "); ok {
		rest = v
	}
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// TestTrailersTellNothing sends the header behind the body.
func TestTrailersTellNothing(t *testing.T) {
	h := newRig(t)
	var arrived http.Header
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, public)
		for buf := make([]byte, 64); ; {
			if _, err := r.Body.Read(buf); err != nil {
				break
			}
		}
		arrived = r.Trailer
	}))
	defer app.Close()
	https, _ := h.serve(t,
		strings.ReplaceAll("localhost:HTTPS {\n\trequire /in* {\n\t\theader_up X-Subject `cert.subject.cn`\n\t}\n"+
			"\treverse_proxy APP\n}\n", "APP", app.URL))
	r, err := http.NewRequestWithContext(t.Context(), "POST", fmt.Sprintf("https://localhost:%d/out", https),
		strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength, r.Trailer = -1, http.Header{
		"X-Subject": {"forged"}, "X_subject": {"forged"},
		"X-Other": {"arrives"},
	}
	resp, err := h.client1(t, nil).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if arrived.Get("X-Subject") != "" || len(arrived["X_subject"]) > 0 || arrived.Get("X-Other") != "arrives" {
		t.Errorf("%v", arrived)
	}
}

// TestHeadersThatMeanNothingAreRefused reads directives that would send what is not
// verified, or under a name that means something else.
func TestHeadersThatMeanNothingAreRefused(t *testing.T) {
	const cn = " `cert.subject.cn`"
	for line, problem := range map[string]string{
		"header_up Host" + cn: "one that clients send", "header_up connection" + cn: "one that clients send",
		"header_up TE" + cn:                "one that clients send",
		"header_up Transfer_Encoding" + cn: "one that clients send",
		"header_up Content-Length" + cn:    "one that clients send",
		"header_up X-Forwarded-For" + cn:   "one that clients send",
		"header_up X_Forwarded_Host" + cn:  "one that clients send",
		"header_up Cookie" + cn:            "one that clients send",
		"header_up Accept-Encoding" + cn:   "one that clients send",
		"header_up X-Original-URL" + cn:    "one that clients send", "header_up X-HTTP-Method-Override" +
			cn: "one that clients send",
		"header_up Client-Cert" + cn: "by itself", "header_up Postern_Person" + cn: "by itself",
		"header_up \"X Y\"" + cn: "is not the name of a header", "header_up X:" + cn: "is not the name of a header",
		"header_up X": "wrong argument count", "header_up": "wrong argument count",
		"header_up X a b":                                                   "one expression",
		"header_up X `request.path`":                                        "neither the certificate nor the person",
		"header_up X `cert`":                                                "a header is text",
		"header_up X `cert.nothing`":                                        "Caddyfile:3: rule, line 1",
		"header_up X" + cn + "\nheader_up x" + cn:                           "has a value already",
		"header_up X-Y" + cn + "\nheader_up X_Y" + cn:                       "has a value already",
		"anyone\nmethod GET\nheader_up X" + cn:                              "asks for a certificate",
		"or anyone {\nmethod GET\nheader_up X" + cn + "\n}":                 "or knows",
		"header_up X `{http.request.tls.client.subject} + cert.subject.cn`": "",
	} {
		_, _, err := Adapt([]byte("localhost {\n\trequire /x* {\n"+line+"\n}\n}\n"), "Caddyfile")
		if err == nil || !strings.Contains(err.Error(), problem) || postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v, want %q", line, err, problem)
		}
	}
}
