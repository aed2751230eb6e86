package portal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/chart"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed static
var staticFiles embed.FS

// maxForm is the size in bytes of the largest form that is read.
const maxForm = 256 << 10

// maxCSR is the size in bytes of the largest certificate request that is accepted.
const maxCSR = 64 << 10

// web renders pages and serves static files under names that change with their
// content.
type web struct {
	pages  map[string]*template.Template
	static map[string]staticFile // by URL path
	names  map[string]string     // file name to URL path
}

type staticFile struct {
	body []byte
	kind string
}

func newWeb() (*web, error) {
	w := &web{pages: map[string]*template.Template{}, static: map[string]staticFile{}, names: map[string]string{}}
	files, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		body, err := staticFiles.ReadFile("static/" + f.Name())
		if err != nil {
			return nil, err
		}
		w.addStatic(f.Name(), body)
	}
	w.addStatic("chart.css", []byte(chart.Style))
	w.addStatic("chart.js", []byte(chart.Script))
	funcs := template.FuncMap{
		"static":     func(name string) string { return w.names[name] },
		"day":        func(t time.Time) string { return t.UTC().Format("2 January 2006") },
		"minute":     func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"rfc":        func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"join":       func(s []string) string { return strings.Join(s, ", ") },
		"short":      shortSerial,
		"eventWords": eventWords,
		"kind": func(c postern.Credential) string {
			return capital(orDefault(credentialWords[c.Kind], string(c.Kind)))
		},
		"lines": func(s []string) string { return strings.Join(s, "\n") },
		"list":  func(s ...string) []string { return s },
		"str":   func(s any) string { return fmt.Sprint(s) },
	}
	base, err := template.New("base").Funcs(funcs).ParseFS(pageFiles, "pages/base.html", "pages/parts.html")
	if err != nil {
		return nil, err
	}
	pages, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	for _, file := range pages {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "base" || name == "parts" {
			continue
		}
		t, err := template.Must(base.Clone()).ParseFS(pageFiles, file)
		if err != nil {
			return nil, err
		}
		w.pages[name] = t
	}
	return w, nil
}

// addStatic serves a file under a name that changes with its content.
func (w *web) addStatic(name string, body []byte) {
	sum := sha256.Sum256(body)
	ext := path.Ext(name)
	url := "/static/" + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
	w.static[url] = staticFile{body: body, kind: mime.TypeByExtension(ext)}
	w.names[name] = url
}

// shortSerial shortens a serial number for reading.
func shortSerial(s string) string {
	if len(s) > 12 {
		return s[:12] + "…"
	}
	return s
}

func (w *web) serveStatic(rw http.ResponseWriter, r *http.Request) {
	f, ok := w.static[r.URL.Path]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	rw.Header().Set("Content-Type", f.kind)
	rw.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(f.body))
}

// secured sets the security headers of every answer: other sites cannot frame, open
// or read a page, and are not sent its address.
func secured(next http.Handler) http.Handler {
	headers := map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
			"connect-src 'self'; " +
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; " +
			"trusted-types 'none'",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
		"Referrer-Policy":              "no-referrer",
		"Strict-Transport-Security":    "max-age=31536000",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Cache-Control":                "no-store",
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range headers {
			w.Header().Set(k, v)
		}
		next.ServeHTTP(w, r)
	})
}

// request is one request with the person who sent it, if they are known.
type request struct {
	*http.Request
	w      http.ResponseWriter
	who    postern.Person // zero if not known
	serial string         // of the certificate that who showed
	admin  bool

	suspended string // the person, if the certificate is valid and they are suspended
}

// page is the data of a template.
type page struct {
	Title  string
	Nav    string // key of the current page's entry in the navigation
	Tab    string // key of the current page among the administrators' pages; "" if it is none
	Site   string
	URL    string
	Who    postern.Person
	Serial string
	Admin  bool
	CSRF   string
	Done   string            // a sentence about what has just been done
	Errors map[string]string // by field; "" is the form's own
	Values map[string]string // what was typed, by field
	Data   any
}

// Error returns the sentence beside a field.
func (p page) Error(field string) string { return p.Errors[field] }

// Value returns what was typed into a field.
func (p page) Value(field string) string { return p.Values[field] }

// TabItem is an entry of the administrators' pages.
func (p page) TabItem(key, path, text string) any {
	return struct {
		Path, Text string
		Here       bool
	}{path, text, p.Tab == key}
}

// NavItem is an entry of the navigation.
func (p page) NavItem(key, path, text string) any {
	return struct {
		Path, Text string
		Here       bool
	}{path, text, p.Nav == key}
}

// With returns the page with other data, for a template of a part.
func (p page) With(data any) page {
	p.Data = data
	return p
}

// field is what the template "field" needs.
type field struct {
	page
	Name, Label, Hint string
	Kind              string // input type, or "textarea"
	Auto              string // autocomplete
	Need              bool
}

// Field returns the description of an input for the template "field".
func (p page) Field(name, label, hint, kind, auto string, need bool) field {
	return field{p, name, label, hint, kind, auto, need}
}

// formError is what is wrong with a form, by field.
type formError struct {
	fields map[string]string
	code   postern.Code
}

func (e *formError) Error() string {
	return fmt.Sprint("form: ", e.fields)
}

// asForm returns err as a formError, if it is one.
func asForm(err error) (*formError, bool) { return errors.AsType[*formError](err) }

// words returns everything that is wrong as one text.
func (e *formError) words() string {
	var all []string
	for _, field := range slices.Sorted(maps.Keys(e.fields)) {
		all = append(all, strings.TrimPrefix(field+": "+e.fields[field], ": "))
	}
	return strings.Join(all, " ")
}

func wrong(field, format string, args ...any) error {
	return &formError{fields: map[string]string{field: fmt.Sprintf(format, args...)}, code: postern.Invalid}
}

// beside returns an error that the person can act on as the error of a field. It
// returns other errors unchanged.
func beside(field string, err error) error {
	if _, ok := asForm(err); ok || err == nil || internalError(err) {
		return err
	}
	return &formError{fields: map[string]string{field: sentence(err)}, code: postern.CodeOf(err)}
}

// internalError reports whether an error is about the portal itself, so that the
// visitor neither can act on it nor should read it. A conflict with a cause comes
// from the database.
func internalError(err error) bool {
	e, ok := errors.AsType[*postern.Error](err)
	return !ok || e.Code == postern.Internal || e.Code == postern.Unavailable ||
		e.Code == postern.Conflict && e.Err != nil
}

// sentence returns an error and its hint as text for a page.
func sentence(err error) string {
	s := err.Error()
	if e, ok := errors.AsType[*postern.Error](err); ok {
		s = e.Msg
	}
	s = capital(s)
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	if hint := postern.HintOf(err); hint != "" {
		s += " " + capital(hint)
	}
	return s
}

// capital makes the first letter of a sentence a capital, unless the first word is a
// name or an address.
func capital(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if strings.ContainsFunc(word, func(r rune) bool { return r < 'a' || r > 'z' }) || word == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var doneSentences = map[string]string{
	"revoked":   "The certificate is revoked, with all unused links. It is not accepted any more.",
	"renewed":   "The certificate is renewed.",
	"suspended": "The person is suspended. None of their credentials is accepted now.",
	"resumed":   "The person may sign in again.",
	"allowed":   "The names are allowed.",
	"dropped":   "The names are no longer allowed.",
	"asked":     "An administrator has been asked.",
	"sent":      "A message is being sent.",
	"cancelled": "The order is cancelled.",
	"disabled":  "The key is disabled.",
	"active":    "The key is enabled again.",
	"added":     "The key is added.",

	"passkey-added":   "The passkey is added.",
	"passkey-rename":  "The passkey has its new name.",
	"passkey-disable": "The passkey is disabled, and all unused links are void.",
	"passkey-enable":  "The passkey is enabled again.",
	"passkey-remove": "The passkey is removed for good, with all unused links. Remove it from your phone, computer " +
		"or key, too.",
	"refused": "The request is refused.",
	"changed": "The change is saved.",
	"lost": "The certificate is revoked, with all unused links. An attacker may have added a key with it: " +
		"disable those that are not yours.",
	"recovered": "Their certificates are revoked, their keys are disabled, and a new link is being sent.",
}

// render answers with a page.
func (p *Portal) render(r *request, status int, name string, pg page) {
	pg.Site, pg.URL, pg.Who, pg.Serial, pg.Admin = p.Name, p.URL, r.who, r.serial, r.admin
	pg.CSRF = p.csrfToken(r)
	if pg.Done == "" && r.Method == http.MethodGet {
		pg.Done = doneSentences[r.URL.Query().Get("done")]
	}
	if pg.Values == nil {
		pg.Values = map[string]string{}
	}
	var b bytes.Buffer
	if err := p.web.pages[name].ExecuteTemplate(&b, "base", pg); err != nil {
		p.Log.Error("page", postern.LogPath, r.URL.Path, postern.LogError, err)
		http.Error(r.w, "The portal failed.", http.StatusInternalServerError)
		return
	}
	r.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	r.w.WriteHeader(status)
	_, _ = b.WriteTo(r.w)
}

// invalid renders the page again with errors beside its fields; the page's script
// gets them as JSON. An error that is not about the form gets a page of its own.
func (p *Portal) invalid(r *request, err error, name string, pg page) {
	fe, ok := asForm(err)
	if !ok {
		p.fail(r, err)
		return
	}
	if wantsJSON(r) {
		writeJSON(r.w, fe.code.HTTPStatus(), map[string]any{"errors": fe.fields})
		return
	}
	pg.Errors = fe.fields
	if pg.Values == nil {
		pg.Values = map[string]string{}
	}
	for k := range r.PostForm {
		if _, set := pg.Values[k]; !set {
			pg.Values[k] = r.PostForm.Get(k)
		}
	}
	p.render(r, fe.code.HTTPStatus(), name, pg)
}

// fail answers with an error page. Internal errors are logged, not shown.
func (p *Portal) fail(r *request, err error) {
	code := postern.CodeOf(err)
	fe, ok := asForm(err)
	var msg string
	switch {
	case ok:
		code, msg = fe.code, fe.words()
	case internalError(err):
		msg = "The portal failed, and has logged why. Try again later."
		if code != postern.Internal {
			msg = "This is not available at the moment. Try again in a minute."
		}
		if r.Context().Err() == nil {
			p.Log.Error("portal", postern.LogPath, r.URL.Path, postern.LogPerson, r.who.Name, postern.LogError, err)
		}
	default:
		msg = sentence(err)
	}
	if wantsJSON(r) {
		writeJSON(r.w, code.HTTPStatus(), map[string]any{"errors": map[string]string{"": msg}})
		return
	}
	p.render(r, code.HTTPStatus(), "error", page{Title: errorTitles[code], Data: msg})
}

var errorTitles = map[postern.Code]string{
	postern.Internal:    "Internal error",
	postern.Invalid:     "Invalid request",
	postern.Denied:      "Not allowed",
	postern.NotFound:    "Not found",
	postern.Conflict:    "Conflict",
	postern.Unavailable: "Not available",
	postern.TooMany:     "Too many attempts",
}

func wantsJSON(r *request) bool { return r.Header.Get("Accept") == "application/json" }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// csrfToken returns the token that each form of this person has. It is bound to the
// certificate that they showed.
func (p *Portal) csrfToken(r *request) string {
	m := hmac.New(sha256.New, p.csrf)
	fmt.Fprintf(m, "form\x00%s\x00%s", r.who.Name, r.serial)
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// form reads the request's form, files included, of at most maxForm bytes.
func (p *Portal) form(r *request) error {
	r.Body = http.MaxBytesReader(r.w, r.Body, maxForm)
	err := r.ParseMultipartForm(maxForm)
	if errors.Is(err, http.ErrNotMultipart) {
		err = nil
	}
	if err != nil {
		return postern.Errorf(postern.Invalid, "The form is too large or malformed.")
	}
	return nil
}

// ownForm reports whether the form has the person's token.
func (p *Portal) ownForm(r *request) bool {
	return r.who.Name == "" || hmac.Equal([]byte(r.PostForm.Get("csrf")), []byte(p.csrfToken(r)))
}

// upload returns what a form has for a name: a file if there is one, else what was pasted.
func upload(r *request, name string, most int64) ([]byte, error) {
	f, _, err := r.FormFile(name + "file")
	if err != nil {
		return []byte(r.PostForm.Get(name)), nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if len(bytes.TrimSpace(b)) == 0 {
		return []byte(r.PostForm.Get(name)), err
	}
	return b, err
}

// csrBytes returns the certificate request of a form.
func csrBytes(r *request) ([]byte, error) { return upload(r, "csr", maxCSR) }

// limit counts an attempt, and fails with TooMany if there were too many.
func (p *Portal) limit(ctx context.Context, key string, most int64, window time.Duration) error {
	n, err := p.Store.Count(ctx, key, most, window, p.now())
	if err != nil {
		return err
	}
	if n > most {
		return postern.Errorf(postern.TooMany, "There were too many attempts.").
			WithHint("Wait a while, then try again.")
	}
	return nil
}

// from returns the peer's address for rate limits: of an IPv6 address its /64.
func (p *Portal) from(r *request) string {
	a := p.Address(r.Request)
	if a.Is6() && !a.Is4In6() {
		if n, err := a.Prefix(64); err == nil {
			return n.String()
		}
	}
	return a.String()
}

func (p *Portal) peer(r *request) string {
	if a := p.Address(r.Request); a.IsValid() {
		return a.String()
	}
	return ""
}

func (p *Portal) redirect(r *request, where string) {
	http.Redirect(r.w, r.Request, where, http.StatusSeeOther)
}
