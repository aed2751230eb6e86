package ca

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// ocspMaxAge bounds how long a cache may keep an OCSP answer, so that a
// revocation is seen soon also through a proxy.
const ocspMaxAge = time.Minute

// crlMaxAge does the same for revocation lists.
const crlMaxAge = time.Minute

// Handler serves what others need to check certificates: GET /crl/ID.crl,
// GET /ca/ID.cer, GET /ocsp/BASE64 and POST /ocsp, and GET /ssh/krl, with or
// without the path of [Authority.URL] before. It is meant to be reached over plain HTTP: what it serves
// is signed, apart from the KRL.
func (a *Authority) Handler(log *slog.Logger) http.Handler {
	h := &handler{a: a, log: log}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /crl/{file}", h.crl)
	mux.HandleFunc("GET /ca/{file}", h.cert)
	mux.HandleFunc("GET /ssh/krl", h.krl)
	// The mux would redirect a GET whose base64 holds "//": cut the path here.
	const ocsp = "/ocsp"
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == ocsp || strings.HasPrefix(r.URL.Path, ocsp+"/") {
			h.ocsp(w, r, ocsp)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if base := a.URLPath(); base != "" && strings.HasPrefix(r.URL.Path, base+"/") {
			http.StripPrefix(base, serve).ServeHTTP(w, r)
			return
		}
		serve(w, r)
	})
}

type handler struct {
	a   *Authority
	log *slog.Logger
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := postern.CodeOf(err)
	if code == postern.Internal || code == postern.Unavailable {
		h.log.ErrorContext(r.Context(), "cannot answer about revocation", slog.String(postern.LogPath, r.URL.Path),
			slog.Any(postern.LogError, err))
	}
	http.Error(w, code.String(), code.HTTPStatus())
}

func (h *handler) crl(w http.ResponseWriter, r *http.Request) {
	id, ok := strings.CutSuffix(r.PathValue("file"), ".crl")
	if !ok || !h.known(id) {
		http.NotFound(w, r)
		return
	}
	crl, err := h.a.CRL(r.Context(), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	etag := fmt.Sprintf(`"%s-%d"`, id, crl.Number)
	h.write(w, r, "application/pkix-crl", crl.DER, etag, crl.ThisUpdate, crl.NextUpdate, crlMaxAge)
}

func (h *handler) known(id string) bool {
	for _, i := range h.a.list() {
		if i.ID == id && i.cert != nil {
			return true
		}
	}
	return false
}

func (h *handler) cert(w http.ResponseWriter, r *http.Request) {
	id, ok := strings.CutSuffix(r.PathValue("file"), ".cer")
	if !ok || !h.known(id) {
		http.NotFound(w, r)
		return
	}
	iss, err := h.a.issuer(r.Context(), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-cert")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	_, _ = w.Write(iss.cert.Raw)
}

func (h *handler) krl(w http.ResponseWriter, r *http.Request) {
	krl, err := h.a.KRL(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(krl)
}

// ocsp answers as RFC 6960 appendix A says: POST with the request as body, GET
// with it in the path, base64 and then percent-encoded.
func (h *handler) ocsp(w http.ResponseWriter, r *http.Request, base string) {
	der, err := ocspBody(w, r, base)
	if err != nil {
		var method methodError
		if errors.As(err, &method) {
			w.Header().Set("Allow", "GET, POST")
			http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
			return
		}
		der = nil // answered as malformed
	}
	answer, err := h.a.OCSP(r.Context(), der)
	if err != nil {
		h.log.ErrorContext(r.Context(), "cannot answer about revocation", slog.String(postern.LogPath, base),
			slog.Any(postern.LogError, err))
	}
	if r.Method != http.MethodGet || answer.NextUpdate.IsZero() {
		w.Header().Set("Content-Type", "application/ocsp-response")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(answer.DER)
		return
	}
	etag := fmt.Sprintf(`"%x"`, digest(crypto.SHA256, answer.DER)[:16])
	h.write(w, r, "application/ocsp-response", answer.DER, etag, answer.ThisUpdate, answer.NextUpdate, ocspMaxAge)
}

type methodError struct{}

func (methodError) Error() string { return "method not allowed" }

func ocspBody(w http.ResponseWriter, r *http.Request, base string) ([]byte, error) {
	switch r.Method {
	case http.MethodPost:
		return io.ReadAll(http.MaxBytesReader(w, r.Body, maxOCSPRequest))
	case http.MethodGet:
		text := strings.TrimLeft(strings.TrimPrefix(r.URL.Path, base), "/")
		if len(text) > maxOCSPRequest {
			return nil, postern.Errorf(postern.Invalid, "too long")
		}
		// Some clients do not encode plus signs and padding as RFC 6960 says.
		text = strings.TrimRight(strings.ReplaceAll(text, " ", "+"), "=")
		return base64.RawStdEncoding.DecodeString(text)
	}
	return nil, methodError{}
}

// write serves a signed object with caching headers as in RFC 5019 section 6.
func (h *handler) write(w http.ResponseWriter, r *http.Request, contentType string, body []byte, etag string, this,
	next time.Time, most time.Duration,
) {
	age := min(most, max(0, next.Sub(h.a.now())))
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("ETag", etag)
	w.Header().Set("Last-Modified", this.UTC().Format(http.TimeFormat))
	w.Header().Set("Expires", h.a.now().Add(age).Format(http.TimeFormat))
	w.Header().Set("Cache-Control", fmt.Sprintf("public, no-transform, must-revalidate, max-age=%d",
		int(age.Seconds())))
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body)
}
