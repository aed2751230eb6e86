package ca

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// APIConfig says who may sign over HTTP besides programs with an API token. With
// its zero value only those may.
type APIConfig struct {
	// Groups are the groups of people who may have certificates signed for any name,
	// by authenticating with their client certificate.
	Groups []string
}

// API signs certificate requests over HTTP, for programs: POST …/sign with a
// JSON [SignCall] of Content-Type application/json is answered by a [SignAnswer]
// once the certificate is in the store; POST …/sign-many with a list of at most 64
// is answered by a list in the same order. A caller authenticates by
// "Authorization: Bearer TOKEN" (see [Authority.AddToken]) or by a client
// certificate, which is checked here. It must be served over TLS that requests a
// client certificate.
type API struct {
	cfg    APIConfig
	a      *Authority
	log    *slog.Logger
	tokens knownTokens
}

// NewAPI returns the handler. log may be nil.
func NewAPI(cfg APIConfig, a *Authority, log *slog.Logger) *API {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &API{cfg: cfg, a: a, log: log}
}

// SignCall is the body of a request to sign.
type SignCall struct {
	CSR      string   `json:"csr"`                // PEM
	Names    []string `json:"names,omitempty"`    // default: those that the CSR asks for
	Validity string   `json:"validity,omitempty"` // as in Go: 720h; default: the authority's
}

// SignAnswer is the answer to a SignCall.
type SignAnswer struct {
	Serial      string    `json:"serial"`
	Certificate string    `json:"certificate"` // PEM
	Chain       string    `json:"chain"`       // PEM, without the root
	NotAfter    time.Time `json:"not_after"`
}

// apiError is the body of an answer that is an error.
type apiError struct {
	Code  string `json:"code"`
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

// ManyAnswer is one answer of sign-many: a SignAnswer or an error.
type ManyAnswer struct {
	*SignAnswer
	*apiError
}

// Bounds on calls.
const (
	maxCall  = 2 * maxCSR // bytes of one
	maxCalls = 64         // in sign-many
	atOnce   = 16         // of them signed at the same time, to be durable together

	maxKnownTokens = 1024
)

// ServeHTTP answers a call. The last element of the path says which.
func (h *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	var call func(http.ResponseWriter, *http.Request, apiCaller) (any, error)
	switch path.Base(r.URL.Path) {
	case "sign":
		call = h.sign
	case "sign-many":
		call = h.signMany
	default:
		h.reply(w, http.StatusNotFound,
			h.problem(r, postern.Errorf(postern.NotFound, "there is no such call").WithHint("POST …/sign")))
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	// The caller is authenticated first: the body of an unauthenticated one is not
	// parsed.
	who, err := h.caller(r)
	if err != nil {
		h.reply(w, postern.CodeOf(err).HTTPStatus(), h.problem(r, err))
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		h.reply(w, http.StatusUnsupportedMediaType, h.problem(r, postern.Errorf(postern.Invalid,
			"the request is not said to be JSON").WithHint("Content-Type: application/json")))
		return
	}
	answer, err := call(w, r, who)
	if err != nil {
		h.reply(w, postern.CodeOf(err).HTTPStatus(), h.problem(r, err))
		return
	}
	h.reply(w, http.StatusCreated, answer)
}

func (h *API) sign(w http.ResponseWriter, r *http.Request, who apiCaller) (any, error) {
	var call SignCall
	if err := readJSON(w, r, maxCall, &call); err != nil {
		return nil, err
	}
	return h.signOne(r.Context(), call, who)
}

func (h *API) signMany(w http.ResponseWriter, r *http.Request, who apiCaller) (any, error) {
	var calls []SignCall
	if err := readJSON(w, r, maxCalls*maxCall/8, &calls); err != nil {
		return nil, err
	}
	if len(calls) > maxCalls {
		return nil, postern.Errorf(postern.Invalid, "%d requests at once, at most %d are signed", len(calls), maxCalls)
	}
	answers := make([]ManyAnswer, len(calls))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, call := range calls {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answer, err := h.signOne(r.Context(), call, who)
			if err != nil {
				answers[i].apiError = h.problem(r, err)
				return
			}
			answers[i].SignAnswer = answer
		})
	}
	wg.Wait()
	return answers, nil
}

func (h *API) signOne(ctx context.Context, call SignCall, who apiCaller) (*SignAnswer, error) {
	validity, err := call.validity()
	if err != nil {
		return nil, err
	}
	r := SignRequest{Names: call.Names, Period: Period{Validity: validity}, By: who.Actor}
	csr, err := parseCSR([]byte(call.CSR), r)
	if err != nil {
		return nil, err
	}
	names := csr.Names
	if call.Names != nil {
		if _, names, err = cleanNames(call.Names); err != nil {
			return nil, err
		}
	}
	if !who.mayCertify(names) {
		return nil, postern.Errorf(postern.Denied, "this token may not have a certificate for all of %s",
			strings.Join(names, ", "))
	}
	out, err := h.a.prepareParsed(ctx, csr, r)
	if out, err = h.a.record(ctx, out, err); err != nil {
		return nil, err
	}
	return &SignAnswer{
		Serial:      out.Serial,
		Certificate: string(EncodeCertificates(out.Leaf)),
		Chain:       string(EncodeCertificates(out.Chain...)),
		NotAfter:    out.NotAfter,
	}, nil
}

func (c SignCall) validity() (time.Duration, error) {
	if c.Validity == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(c.Validity)
	if err != nil || d <= 0 {
		return 0, postern.Errorf(postern.Invalid, "%q is not a validity", c.Validity).WithHint("as in 720h")
	}
	return d, nil
}

// readJSON reads a body of at most that many bytes.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return postern.Errorf(postern.Invalid, "the request is larger than %d KiB", most>>10)
	}
	if err != nil {
		return postern.Errorf(postern.Invalid, "the request is not the JSON that is expected: %w", err)
	}
	return nil
}

// apiCaller is a caller who may sign.
type apiCaller struct {
	postern.Actor
	token *APIToken // nil: a person, who may for any name
}

func (c apiCaller) mayCertify(list []string) bool { return c.token == nil || c.token.allows(list) }

var errUnauthenticated = postern.Errorf(postern.Denied, "no token and no client certificate that may sign").
	WithHint("send an API token, or the client certificate of a person who may sign")

// caller authenticates the caller, or fails with Denied.
func (h *API) caller(r *http.Request) (apiCaller, error) {
	who := apiCaller{}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		who.Address = ap.Addr().Unmap().String()
	}
	if auth := r.Header.Get("Authorization"); auth != "" {
		secret, ok := strings.CutPrefix(auth, "Bearer ")
		if !ok {
			return who, errUnauthenticated
		}
		token, err := h.token(r.Context(), secret)
		if err != nil {
			return who, err
		}
		who.token, who.Credential = &token, postern.Link{Kind: string(postern.APIToken), ID: token.Name}
		return who, nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return who, errUnauthenticated
	}
	p, err := h.a.Holder(r.Context(), r.TLS.PeerCertificates)
	if err != nil {
		return who, err
	}
	if !slices.ContainsFunc(p.Groups, func(g string) bool { return slices.Contains(h.cfg.Groups, g) }) {
		return who, postern.Errorf(postern.Denied, "%s may not sign", p.Name)
	}
	who.Person = p.Name
	who.Credential = postern.Link{
		Kind: string(postern.X509Certificate),
		ID:   SerialString(r.TLS.PeerCertificates[0].SerialNumber),
	}
	return who, nil
}

func (h *API) token(ctx context.Context, secret string) (APIToken, error) {
	sum := sha256.Sum256([]byte(secret))
	t, ok := h.tokens.get(sum, h.a.now())
	if !ok {
		var err error
		t, err = h.a.store.APIToken(ctx, sum[:])
		switch {
		case postern.CodeOf(err) == postern.NotFound:
			return t, errUnauthenticated
		case err != nil:
			return t, err
		case subtle.ConstantTimeCompare(t.Hash, sum[:]) != 1:
			return t, errUnauthenticated
		}
		h.tokens.put(sum, t, h.a.now())
	}
	if !t.Expires.IsZero() && !h.a.now().Before(t.Expires) {
		return t, postern.Errorf(postern.Denied, "the token %s has expired", t.Name)
	}
	return t, nil
}

// tokenLife is how long a token that was found in the store is not looked up
// again: one that is removed, on any server, is refused after at most that long.
const tokenLife = 500 * time.Millisecond

// knownTokens are the tokens that were looked up lately, by their hash. It is
// safe for concurrent use; its zero value is empty.
type knownTokens struct {
	mu   sync.Mutex
	list map[[sha256.Size]byte]knownToken
}

type knownToken struct {
	APIToken
	found time.Time
}

func (k *knownTokens) get(hash [sha256.Size]byte, now time.Time) (APIToken, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.list[hash]
	age := now.Sub(t.found)
	return t.APIToken, ok && age >= 0 && age < tokenLife
}

func (k *knownTokens) put(hash [sha256.Size]byte, t APIToken, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.list == nil || len(k.list) >= maxKnownTokens {
		k.list = map[[sha256.Size]byte]knownToken{}
	}
	k.list[hash] = knownToken{t, now}
}

// Holder returns the person whose client certificate is the first of a chain, of
// which TLS has proved that the peer has its key. It fails with Denied unless this
// authority issued the certificate to a person who is active, and it is neither
// expired nor revoked.
func (a *Authority) Holder(ctx context.Context, chain []*x509.Certificate) (postern.Person, error) {
	leaf := chain[0]
	no := postern.Errorf(postern.Denied, "the client certificate is none of this authority's, or no longer valid")
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Root())
	for _, c := range a.Trusted(Client) {
		inter.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: a.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return postern.Person{}, no
	}
	c, err := a.store.Certificate(ctx, SerialString(leaf.SerialNumber))
	switch {
	case postern.CodeOf(err) == postern.NotFound:
		return postern.Person{}, no
	case err != nil:
		return postern.Person{}, err
	case c.Profile != ProfileClient || !c.Revoked.IsZero() || string(c.DER) != string(leaf.Raw):
		return postern.Person{}, no
	}
	p, err := a.store.Person(ctx, c.Person)
	if err != nil {
		return p, err
	}
	if !p.Active() {
		return postern.Person{}, postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	return p, nil
}

// problem returns an error as the caller may see it, and logs faults of the server.
func (h *API) problem(r *http.Request, err error) *apiError {
	code := postern.CodeOf(err)
	if code == postern.Internal || code == postern.Unavailable {
		h.log.ErrorContext(r.Context(), "cannot sign", slog.Any(postern.LogError, err))
		return &apiError{Code: code.String(), Error: "the authority cannot sign now"}
	}
	return &apiError{Code: code.String(), Error: err.Error(), Hint: postern.HintOf(err)}
}

func (h *API) reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone
}
