// Package sign is the service that issues SSH certificates to people who prove
// themselves by a client certificate or a code.
package sign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	_ "embed"

	"cel.dev/cel-go/cel"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"golang.org/x/crypto/ssh"
)

// Certificate is an SSH user certificate to make, or made.
type Certificate struct {
	Person       string
	Key          ssh.PublicKey
	Principals   []string      // accounts that it opens
	Validity     time.Duration // 0: the CA's own
	Sources      []string      // addresses or networks that it is good from; none: any
	ForceCommand string
	Extensions   []string
	// VerifyRequired has sshd require that the FIDO2 key verified its user.
	VerifyRequired bool
}

// Signed is a certificate as its owner gets it.
type Signed struct {
	Line        string    `json:"certificate"` // for the file KEY-cert.pub
	Serial      uint64    `json:"serial"`
	Principals  []string  `json:"principals"`
	ValidBefore time.Time `json:"valid_before"`
	KnownHosts  string    `json:"known_hosts,omitempty"` // lines that trust the host CA
}

// Signer is the certificate authority. It is safe for concurrent use.
type Signer interface {
	// SignUser issues a certificate. It fails with postern.Denied for a person who
	// is not active, and once the actor's credential is not valid any more.
	SignUser(ctx context.Context, by postern.Actor, c Certificate) (Signed, error)
	// KnownHosts returns lines for known_hosts(5).
	KnownHosts() (string, error)
	// UserCAs returns the file for TrustedUserCAKeys.
	UserCAs() ([]byte, error)
}

// Rule says what the certificates of a group's members may do.
type Rule struct {
	Groups []string `json:"groups,omitempty"` // any of them; none: all people but those who signed up
	// {person} stands for the person's name; none: that alone; root only by its name
	Principals   []string `json:"principals,omitempty"`
	Sources      []string `json:"sources,omitempty"`
	ForceCommand string   `json:"force_command,omitempty"`
	Extensions   []string `json:"extensions,omitempty"`
	Validity     string   `json:"validity,omitempty"` // as 10h; empty: the CA's own
	// Key is a condition in CEL that the key has to meet, such as key.attested; empty: none.
	Key string `json:"key,omitempty"`

	condition cel.Program
}

// ParseRules reads a JSON array of rules. The first that applies to a person is used; a
// person to whom none applies gets no certificate. An empty file is one rule for all
// people whom an administrator has added or approved: their own account, a terminal, and
// forwarding.
func ParseRules(b []byte) ([]Rule, error) {
	if len(b) == 0 {
		return []Rule{{Extensions: []string{
			"permit-pty", "permit-port-forwarding", "permit-agent-forwarding",
			"permit-X11-forwarding", "permit-user-rc",
		}}}, nil
	}
	var rules []Rule
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rules); err != nil {
		return nil, postern.Errorf(postern.Invalid, "rules for SSH certificates: %w", err)
	}
	for i := range rules {
		r := &rules[i]
		var err error
		if r.condition, err = condition(r.Key); err != nil {
			return nil, err
		}
		if _, err := r.validity(); err != nil {
			return nil, err
		}
	}
	return rules, nil
}

func (r Rule) validity() (time.Duration, error) {
	if r.Validity == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(r.Validity)
	if err != nil || d <= 0 {
		return 0, postern.Errorf(postern.Invalid, "rules for SSH certificates: %q is no validity", r.Validity)
	}
	return d, nil
}

// Certificate returns what a person of these groups gets for a key.
func (r Rule) Certificate(person string, key EnrolledKey) (Certificate, error) {
	validity, err := r.validity()
	c := Certificate{
		Person: person, Key: key.Public, VerifyRequired: key.VerifyRequired, Validity: validity,
		Sources: r.Sources, ForceCommand: r.ForceCommand, Extensions: r.Extensions,
	}
	principals := r.Principals
	if len(principals) == 0 {
		principals = []string{"{person}"}
	}
	for _, p := range principals {
		named := strings.ReplaceAll(p, "{person}", person)
		if named == "root" && p != named {
			return c, postern.Errorf(postern.Denied, "no rule names root").
				WithHint("a rule that names the account root permits it")
		}
		c.Principals = append(c.Principals, named)
	}
	if c.Extensions == nil {
		c.Extensions = []string{}
	}
	return c, err
}

// RuleFor returns the first rule that applies to a person in these groups and to a key. People who
// signed up chose their name, which could be that of an account on any host: only a rule
// that names one of their groups applies to them.
func RuleFor(rules []Rule, groups []string, key EnrolledKey) (Rule, error) {
	unknown, otherKey := slices.Contains(groups, postern.SignedUp), false
	for _, r := range rules {
		if len(r.Groups) == 0 && !unknown || slices.ContainsFunc(r.Groups, func(g string) bool {
			return slices.Contains(groups, g)
		}) {
			if r.meets(key) {
				return r, nil
			}
			otherKey = true
		}
	}
	if otherKey {
		return Rule{}, postern.Errorf(postern.Denied, "no rule gives you an SSH certificate for this key").
			WithHint("enrol a FIDO2 key first, or take the key that you enrolled")
	}
	if unknown {
		return Rule{}, postern.Errorf(postern.Denied,
			"you signed up by yourself, and no administrator has approved you for SSH yet").
			WithHint("ask an administrator to take you out of the group %s", postern.SignedUp)
	}
	return Rule{}, postern.Errorf(postern.Denied, "no rule gives you an SSH certificate")
}

// Deps is what the signing service stands on.
type Deps struct {
	Signer Signer
	Check  sshd.Checker
	// Certificate returns what the rules that hold now give a person for a key.
	Certificate func(ctx context.Context, person string, key ssh.PublicKey) (Certificate, error)
	// Identify says who a request comes from, proved by a client certificate.
	Identify func(*http.Request) (who postern.Actor, ok bool)
	Address  func(*http.Request) string // the client's, without port
	Enroller Enroller
	Log      *slog.Logger
}

// signBodyMax bounds a request, bytes.
const signBodyMax = 1 << 14

//go:embed sign.html
var signPage string

var signTemplate = template.Must(template.New("sign").Parse(signPage))

// NewHandler serves POST /ssh/sign, which gives a certificate for a key to
// who shows a client certificate or a code, as JSON or on the page /ssh/sign; GET
// /ssh/challenge and POST /ssh/enrol, which take FIDO2 keys with their attestation; and
// GET /ssh/known_hosts and /ssh/user_ca.
func NewHandler(d Deps) http.Handler {
	h := &signHandler{Deps: d}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ssh/sign", h.page)
	mux.HandleFunc("POST /ssh/sign", h.sign)
	mux.HandleFunc("GET /ssh/challenge", h.challenge)
	mux.HandleFunc("POST /ssh/enrol", h.enrol)
	mux.HandleFunc("GET /ssh/known_hosts", func(w http.ResponseWriter, r *http.Request) {
		h.text(w, r, d.Signer.KnownHosts)
	})
	mux.HandleFunc("GET /ssh/user_ca", func(w http.ResponseWriter, r *http.Request) {
		h.text(w, r, func() (string, error) { b, err := d.Signer.UserCAs(); return string(b), err })
	})
	// A client certificate speaks for a browser whatever page it is on.
	return http.NewCrossOriginProtection().Handler(mux)
}

type signHandler struct{ Deps }

// signRequest is what a client posts, as JSON or as a form.
type signRequest struct {
	PublicKey string `json:"public_key"`       // a line of a .pub file
	Person    string `json:"person,omitempty"` // with Code, where no client certificate is shown
	Code      string `json:"code,omitempty"`
}

func (h *signHandler) sign(w http.ResponseWriter, r *http.Request) {
	q, form, err := readSignRequest(w, r)
	var signed Signed
	if err == nil {
		signed, err = h.issue(r, q)
	}
	if form {
		h.show(w, r, signPageData{Signed: signed, Err: err, Person: q.Person, PublicKey: q.PublicKey})
		return
	}
	h.answer(w, r, signed, err)
}

// answer writes a JSON object, or what went wrong.
func (h *signHandler) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(h.status(r, err))
		v = map[string]string{"error": said(err), "hint": postern.HintOf(err)}
	}
	_ = json.NewEncoder(w).Encode(v)
}

func readSignRequest(w http.ResponseWriter, r *http.Request) (q signRequest, form bool, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, signBodyMax)
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case "application/json":
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(b, &q)
		}
		if err != nil {
			return q, false, postern.Errorf(postern.Invalid, "the request is no JSON object of at most %d bytes",
				signBodyMax)
		}
		return q, false, nil
	case "application/x-www-form-urlencoded":
		if r.ParseForm() != nil {
			return q, true, postern.Errorf(postern.Invalid, "the form cannot be read")
		}
		return signRequest{
			PublicKey: r.PostForm.Get("public_key"), Person: r.PostForm.Get("person"),
			Code: r.PostForm.Get("code"),
		}, true, nil
	}
	return q, false, postern.Errorf(postern.Invalid, "the request is neither JSON nor a form")
}

// issue finds out who asks, and signs what the rules give them.
func (h *signHandler) issue(r *http.Request, q signRequest) (Signed, error) {
	key, err := ParsePublicKey(q.PublicKey)
	if err != nil {
		return Signed{}, err
	}
	who, err := h.actor(r, q.Person, q.Code)
	if err != nil {
		return Signed{}, err
	}
	c, err := h.Certificate(r.Context(), who.Person, key)
	if err != nil {
		return Signed{}, err
	}
	return h.Signer.SignUser(r.Context(), who, c)
}

// ParsePublicKey reads a line of a .pub file.
func ParsePublicKey(line string) (ssh.PublicKey, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "that is no SSH public key").
			WithHint("give one line of a .pub file")
	}
	return key, nil
}

// actor returns who a request comes from: whom the client certificate names,
// else whom the code proves.
func (h *signHandler) actor(r *http.Request, person, code string) (postern.Actor, error) {
	if who, ok := h.Identify(r); ok && (person == "" || person == who.Person) && code == "" {
		return who, nil
	}
	if person == "" || code == "" {
		return postern.Actor{}, postern.Errorf(postern.Denied, "neither a client certificate nor a name and a code")
	}
	proof, err := h.Check.CheckCode(r.Context(), sshd.Attempt{
		User: person, Service: "ssh-sign",
		Address: h.Address(r), Code: code,
	})
	if postern.CodeOf(err) == postern.NotFound {
		err = postern.Errorf(postern.Denied, "the code was not accepted") // does not reveal who exists
	}
	if err == nil && proof.Person == "" {
		err = postern.Errorf(postern.Denied, "the code was not accepted")
	}
	return postern.Actor{Person: proof.Person, Credential: proof.Credential, Address: h.Address(r)}, err
}

func (h *signHandler) status(r *http.Request, err error) int {
	code := postern.CodeOf(err)
	if code == postern.Internal || code == postern.Unavailable {
		h.Log.ErrorContext(r.Context(), "SSH signing", slog.Any(postern.LogError, err))
	}
	return code.HTTPStatus()
}

// said is the text of an error for a client: of its own mistakes, not of ours.
func said(err error) string {
	e, ok := errors.AsType[*postern.Error](err)
	switch {
	case !ok || e.Code == postern.Internal:
		return "something broke here"
	case e.Code == postern.Unavailable:
		return "this is not available right now"
	}
	return e.Msg
}

func (h *signHandler) text(w http.ResponseWriter, r *http.Request, get func() (string, error)) {
	text, err := get()
	if err != nil {
		http.Error(w, said(err), h.status(r, err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, text)
}

type signPageData struct {
	Known             string // whom the client certificate names
	Person, PublicKey string
	Signed            Signed
	Err               error
	Said, Hint        string
}

func (h *signHandler) page(w http.ResponseWriter, r *http.Request) { h.show(w, r, signPageData{}) }

func (h *signHandler) show(w http.ResponseWriter, r *http.Request, data signPageData) {
	known, _ := h.Identify(r)
	data.Known = known.Person
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if data.Err != nil {
		data.Said, data.Hint = said(data.Err), postern.HintOf(data.Err)
		w.WriteHeader(h.status(r, data.Err))
	}
	_ = signTemplate.Execute(w, data)
}
