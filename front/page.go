package front

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/postern-project/postern/gate"
)

// refusal is why a request is not served.
type refusal struct {
	status int
	reason gate.Reason // of a certificate; OK when it is not about one
}

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
	pagePolicy   = contentPolicy(pageCSS)
)

func contentPolicy(css string) string {
	sum := sha256.Sum256([]byte(css))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// page is what the template and the JSON answer are made of.
type page struct {
	Status int          `json:"status"`
	Reason string       `json:"reason"`
	Title  string       `json:"title"`
	Words  string       `json:"detail"`
	Advice string       `json:"advice,omitempty"`
	Portal string       `json:"portal,omitempty"`
	CSS    template.CSS `json:"-"`
}

// answer writes the page that says why. It never reveals the rule.
func (g *Guard) answer(w http.ResponseWriter, r *http.Request, why refusal) {
	p := newPage(why, g.live.mounts().portal)
	h := w.Header()
	for name, value := range map[string]string{
		"Cache-Control":           "no-store",
		"Content-Security-Policy": pagePolicy,
		"Referrer-Policy":         "no-referrer",
		"Vary":                    "Accept",
		"X-Content-Type-Options":  "nosniff",
		"X-Frame-Options":         "DENY",
	} {
		h.Set(name, value)
	}
	if why.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "2")
	} else if why.reason != gate.OK && r.ProtoMajor < 3 {
		h.Set("Connection", "close") // on a new connection another certificate can be shown
	}
	kind, body := p.render(r.Header.Get("Accept"))
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(why.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone
	}
}

func newPage(why refusal, portal string) page {
	p := page{
		Status: why.status, Reason: why.reason.String(), Words: why.reason.Words(), Portal: portal,
		CSS: template.CSS(pageCSS),
	}
	switch why.status {
	case http.StatusBadRequest:
		p.Title, p.Reason, p.Portal = "This address cannot be read safely", ambiguousPath, ""
		p.Words = "The address contains characters that different servers read in different ways, so it is not " +
			"served here."
		return p
	case http.StatusMisdirectedRequest:
		p.Title, p.Reason, p.Portal = "Wrong connection", "misdirected", ""
		p.Words = "This page has to be asked for on a connection of its own. Your browser does so when you reload " +
			"the page."
		return p
	case http.StatusServiceUnavailable:
		p.Title, p.Portal = "Please try again in a moment", ""
		return p
	case http.StatusNotFound, http.StatusGone:
		p.Title, p.Words, p.Portal = "Nothing here", "There is no page at this address.", ""
		return p
	}
	p.Title = "This page needs a certificate"
	switch why.reason {
	case gate.NoneShown:
		p.Advice = "If you have one, install it in your browser and reload this page."
	case gate.Unreadable:
		p.Title = "Your certificate cannot be read"
		p.Advice = "Its key, or that of its issuer, is of a kind that this server does not know. Ask for a " +
			"certificate of another kind. This server asks your browser for a certificate again in five minutes."
	case gate.NotPerson, gate.RuleFailed:
		p.Title = "This page is not for you"
		p.Advice = "If you have another certificate, close the browser, open it again and choose that one."
	case gate.Closed:
		p.Title, p.Portal = "This page is closed", ""
		return p
	case gate.Suspended:
		p.Title, p.Portal = "This page is closed to you", ""
		p.Advice = "Ask the administrator of this site."
	default:
		p.Title = "Your certificate is not accepted"
	}
	if p.Portal == "" && p.Advice == "" {
		p.Advice = "Ask the administrator of this site for a certificate."
	}
	return p
}

// render returns the page in the form that the client would rather have.
func (p page) render(accept string) (kind string, body []byte) {
	var b bytes.Buffer
	switch {
	case strings.Contains(accept, "text/html"), strings.Contains(accept, "application/xhtml+xml"):
		if err := pageTemplate.Execute(&b, p); err != nil {
			return "text/plain; charset=utf-8", []byte(p.Title + "\n")
		}
		return "text/html; charset=utf-8", b.Bytes()
	case strings.Contains(accept, "json"):
		body, err := json.Marshal(p)
		if err != nil {
			return "text/plain; charset=utf-8", []byte(p.Title + "\n")
		}
		return "application/problem+json", append(body, '\n')
	}
	for _, line := range []string{p.Title, p.Words, p.Advice} {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	if p.Portal != "" {
		b.WriteString("Get a certificate at " + p.Portal + "\n")
	}
	return "text/plain; charset=utf-8", b.Bytes()
}
