package otp

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
)

// Config configures a [Service]. The zero value works.
type Config struct {
	// Timeout bounds the work on one request; 0 means 10 seconds.
	Timeout time.Duration
	// Sync synchronizes with yubikey-val servers; the zero value with none.
	Sync Sync
	// Now returns the time; nil means the system's clock.
	Now func() time.Time
	// Logger logs failures to write to the timeline; nil means slog.Default.
	Logger *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Timeout < 0 {
		return postern.Errorf(postern.Invalid, "the validation service's timeout is negative")
	}
	return c.Sync.Validate()
}

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Service answers Yubico's validation protocol, 2.0 at /wsapi/2.0/verify and
// 1.x at /wsapi/verify, and if configured the sync protocol of yubikey-val. It
// is an [http.Handler], safe for concurrent use.
//
// See https://developers.yubico.com/yubikey-val/Validation_Protocol_V2.0.html
type Service struct {
	config Config
	keys   Keys
	mux    *http.ServeMux
	log    *coalesce.Writer
	sync   *syncer
}

// NewService returns a service over keys that writes refusals to log. Close it to have
// the last ones written.
func NewService(c Config, keys Keys, log Log) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	s := &Service{config: c, keys: keys, mux: http.NewServeMux(), log: refusals(log, c.Logger)}
	for pattern, version := range map[string]int{
		"/wsapi/2.0/verify": 2, "/wsapi/verify": 1, "/wsapi/1.0/verify": 1,
		"/wsapi/1.1/verify": 1,
	} {
		verify := func(w http.ResponseWriter, r *http.Request) { s.serveVerify(w, r, version) }
		s.mux.HandleFunc("GET "+pattern, verify)
		s.mux.HandleFunc("POST "+pattern, verify)
		s.mux.HandleFunc("HEAD "+pattern, withoutEffect)
	}
	s.sync = newSyncer(c.Sync, c.Logger)
	if len(c.Sync.Allow) > 0 {
		s.mux.HandleFunc("GET /wsapi/2.0/sync", s.serveSync)
		s.mux.HandleFunc("HEAD /wsapi/2.0/sync", withoutEffect)
	}
	return s, nil
}

// withoutEffect answers HEAD, which must not use up a code.
func withoutEffect(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = contentType
	w.Header()["Cache-Control"] = noStore
}

// ServeHTTP answers one request: GET and POST, which use up the code, and HEAD,
// which does not.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close waits until the pending events are on the timeline.
func (s *Service) Close() error {
	s.sync.close()
	return s.log.Close()
}

// check is the state of one request to verify a code.
type check struct {
	service  *Service
	version  int
	params   params
	address  string
	otp      string // as the client wrote it, without white space around it
	nonce    string
	level    int // sl, percent
	wait     time.Duration
	client   *APIClient
	key      *Key
	token    Token
	status   Status
	answered int // percent of the peers that agreed
}

func (s *Service) serveVerify(w http.ResponseWriter, r *http.Request, version int) {
	ctx, cancel := context.WithTimeout(r.Context(), s.config.Timeout)
	defer cancel()
	c := &check{service: s, version: version, address: peer(r), answered: 100}
	query, ok := requestQuery(w, r)
	if ok {
		c.params, ok = parseQuery(query)
	}
	if !ok {
		c.status = StatusMissingParameter
	} else {
		c.status = c.run(ctx)
	}
	c.answer(w)
}

// requestQuery returns the parameters of a GET, or of a POST with a form.
func requestQuery(w http.ResponseWriter, r *http.Request) (string, bool) {
	if r.Method != http.MethodPost || r.URL.RawQuery != "" {
		return r.URL.RawQuery, true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuery))
	return string(body), err == nil
}

// peer returns the address that a request came from.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// run makes all checks of a request in the order that reveals least: parameters,
// client, signature, and only then the code.
func (c *check) run(ctx context.Context) Status {
	for _, step := range []func(context.Context) Status{
		c.readParams, c.findClient, c.checkSignature, c.openCode,
		c.accept,
	} {
		if status := step(ctx); status != "" {
			return status
		}
	}
	return StatusOK
}

func (c *check) readParams(context.Context) Status {
	c.otp = strings.TrimSpace(c.params.lookup("otp"))
	if c.otp == "" || c.params.lookup("id") == "" {
		return StatusMissingParameter
	}
	nonce := c.params.lookup("nonce")
	switch {
	case c.version < 2 && nonce == "":
		c.nonce = newNonce() // 1.x has none
	case validNonce(nonce):
		c.nonce, c.version = nonce, 2 // a 1.x client that sends one wants it back
	default:
		return StatusMissingParameter
	}
	var ok bool
	if c.level, c.wait, ok = c.service.config.Sync.level(c.params.lookup("sl"), c.params.lookup("timeout")); !ok {
		return StatusMissingParameter
	}
	return ""
}

func (c *check) findClient(ctx context.Context) Status {
	id, err := strconv.ParseInt(c.params.lookup("id"), 10, 64)
	if err != nil || id < 1 || id > MaxClientID {
		return StatusMissingParameter
	}
	client, err := c.service.keys.Client(ctx, id)
	switch {
	case postern.CodeOf(err) == postern.NotFound:
		return StatusNoSuchClient
	case err != nil:
		return c.backend(err)
	}
	c.client = client
	if client.Disabled {
		c.refuse("API client disabled")
		return StatusOperationNotAllowed
	}
	return ""
}

func (c *check) checkSignature(context.Context) Status {
	if !c.params.has("h") && !c.client.MustSign {
		return ""
	}
	if !c.params.signed(c.client.Secret) {
		c.refuse("bad signature")
		return StatusBadSignature
	}
	return ""
}

// openCode finds the key that the code belongs to and decrypts it.
func (c *check) openCode(ctx context.Context) Status {
	key, token, reason, err := openCode(ctx, c.service.keys, c.otp)
	if err != nil {
		return c.backend(err)
	}
	c.key, c.token = key, token
	if reason != "" {
		c.refuse(reason)
		return StatusBadOTP
	}
	return ""
}

// upstreamKey is the reason why a code whose secret is not here cannot be decrypted.
const upstreamKey = "key of an upstream service"

// openCode tries every reading of a typed code. It returns the key with the public ID,
// or nil if none is known. reason is empty only if the code is one of that key and the
// key is active.
func openCode(ctx context.Context, keys Keys, typed string) (found *Key, _ Token, reason string, _ error) {
	readings := Readings(typed)
	if readings == nil {
		return nil, Token{}, "not a code", nil
	}
	reason = "unknown key"
	for _, code := range readings {
		key, err := keys.Key(ctx, code.PublicID)
		if postern.CodeOf(err) == postern.NotFound && err != nil {
			continue
		}
		if err != nil {
			return nil, Token{}, "", err
		}
		found = key
		if key.Secret == nil {
			reason = upstreamKey
			continue
		}
		token, ok := code.Open(key.Secret.cipher(), key.Secret.PrivateID)
		if !ok {
			reason = "not a code of this key"
			continue
		}
		return key, token, key.refusal(), nil
	}
	return found, Token{}, reason, nil
}

// OpenCode returns the key that a typed code is of, whatever its status, and what is to be
// stored if the code is accepted, which it is not here. It is Denied if no key here has
// made the code.
func OpenCode(ctx context.Context, keys Keys, typed string) (*Key, Last, error) {
	key, token, reason, err := openCode(ctx, keys, typed)
	if err != nil {
		return nil, Never, err
	}
	if reason != "" && (key == nil || reason != key.refusal()) {
		return nil, Never, postern.Errorf(postern.Denied, "%s", reason)
	}
	return key, Last{Seq: token.Seq(), Timestamp: token.Timestamp}, nil
}

// refusal returns why the key is not active, "" if it is.
func (k *Key) refusal() string {
	switch {
	case k.Active():
		return ""
	case k.Status != postern.CredentialActive:
		return "key " + string(k.Status)
	}
	return "person " + string(k.Owner)
}

// accept uses up the code durably, or sets the status if it was used before.
func (c *check) accept(ctx context.Context) Status {
	now := c.service.config.Now()
	use := Use{
		PublicID: c.key.PublicID,
		Last:     Last{Seq: c.token.Seq(), Timestamp: c.token.Timestamp, Nonce: c.nonce, Time: now},
		Events:   []postern.Event{c.event(postern.OK, "")},
		Peers:    c.service.config.Sync.Peers,
	}
	verdict, last, err := c.service.keys.Accept(ctx, use)
	switch {
	case err != nil:
		return c.backend(err)
	case verdict == Replayed && last.Seq == use.Seq && last.Nonce == c.nonce:
		c.refuse("replayed request")
		return StatusReplayedRequest
	case verdict == Replayed:
		c.refuse("replayed code")
		return StatusReplayedOTP
	case verdict != Accepted:
		c.refuse("key or person no longer active")
		return StatusBadOTP
	}
	return c.askPeers(use)
}

// backend sets the status when the store has failed.
func (c *check) backend(err error) Status {
	if !errors.Is(err, context.Canceled) {
		c.service.config.Logger.Error("cannot check one-time passwords", postern.LogError, err)
	}
	return StatusBackendError
}

// event returns the event that records this request, without the code.
func (c *check) event(outcome postern.Outcome, reason string) postern.Event {
	e := postern.Event{
		Time:    c.service.config.Now(),
		Kind:    postern.EventOTP,
		Outcome: outcome,
		Address: c.address,
		Reason:  reason,
		Details: map[string]string{"service": "validation"},
	}
	if c.client != nil {
		e.Details["client"] = strconv.FormatInt(c.client.ID, 10)
	}
	if c.key != nil {
		e.Person, e.Object = c.key.Person, c.key.PublicID
		e.Links = []postern.Link{{Kind: string(postern.YubiKey), ID: c.key.PublicID}}
	}
	return e
}

func (c *check) refuse(reason string) { c.service.log.Add(c.event(postern.Refused, reason)) }

// answer writes the reply. It is signed if the client is known and has a secret. It
// repeats code and nonce exactly as they were sent.
func (c *check) answer(w http.ResponseWriter) {
	lines := make(params, 0, 8)
	add := func(name, value string) { lines = append(lines, param{name, value}) }
	var stamp [32]byte
	add("t", string(appendTime(stamp[:0], c.service.config.Now())))
	if c.version >= 2 {
		if c.otp != "" && echoes(c.otp) {
			add("otp", c.otp)
		}
		if c.nonce != "" {
			add("nonce", c.nonce)
		}
		if c.status == StatusOK || c.status == StatusNotEnoughAnswers {
			add("sl", strconv.Itoa(c.answered))
		}
	}
	if c.status == StatusOK && c.params.lookup("timestamp") == "1" {
		add("timestamp", strconv.FormatUint(uint64(c.token.Timestamp), 10))
		add("sessioncounter", strconv.Itoa(int(c.token.Counter)))
		add("sessionuse", strconv.Itoa(int(c.token.Use)))
	}
	add("status", string(c.status))

	body := make([]byte, 0, 512)
	if c.client != nil && len(c.client.Secret) > 0 {
		body = append(body, "h="...)
		body = base64.StdEncoding.AppendEncode(body, lines.sign(c.client.Secret))
		body = append(body, "\r\n"...)
	}
	for _, kv := range lines {
		body = append(body, kv.name...)
		body = append(body, '=')
		body = append(body, kv.value...)
		body = append(body, "\r\n"...)
	}
	body = append(body, "\r\n"...)
	w.Header()["Content-Type"] = contentType
	w.Header()["Cache-Control"] = noStore
	_, _ = w.Write(body)
}

var (
	contentType = []string{"text/plain; charset=utf-8"}
	noStore     = []string{"no-store"}
)

// echoes reports whether s can be repeated in the answer: it is short and has nothing
// that could begin another line, or another parameter in the signed text. No keyboard
// layout types such a code.
func echoes(s string) bool {
	if len(s) > maxCodeBytes {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == '&' || r == '=' || r == 0x7f || r == 0xfffd || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return true
}
