package otp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/postern-project/postern"
)

// YubiCloud is Yubico's own validation service.
const YubiCloud = "https://api.yubico.com/wsapi/2.0/verify"

const maxServers = 16

// ClientConfig says which validation service to ask and how. ID and Key are
// required; the rest may stay zero. As JSON it says what people choose, without the key.
type ClientConfig struct {
	ID   int64    `json:"id"` // the API client's number at the service
	Key  []byte   `json:"-"`  // its secret: requests are signed with it, and answers must be
	URLs []string `json:"urls"`
	// Timeout is for the whole check; 0 means 8 seconds.
	Timeout time.Duration `json:"-"`
	// Skew is how far the server's clock may be from ours; 0 means 5 minutes.
	Skew time.Duration `json:"-"`
	// Level is the protocol's sl: the percentage of its peers that must have confirmed
	// the code to the server, "fast" or "secure"; empty leaves it to the server.
	Level string `json:"level,omitempty"`
	// Proxy is the URL of an HTTP proxy. It is never taken from the environment: an
	// attacker who can set that could answer in the server's place.
	Proxy string `json:"proxy,omitempty"`
	// Roots are the certification authorities to trust; nil: the system's.
	Roots *x509.CertPool `json:"-"`
	// Plain allows http: URLs of other hosts than this one. Answers are signed, but an
	// attacker on the network can keep a code and use it.
	Plain bool `json:"-"`
	// Now returns the time; nil means the system's clock.
	Now func() time.Time `json:"-"`
}

func (c ClientConfig) withDefaults() ClientConfig {
	if len(c.URLs) == 0 {
		c.URLs = []string{YubiCloud}
	}
	if c.Timeout == 0 {
		c.Timeout = 8 * time.Second
	}
	if c.Skew == 0 {
		c.Skew = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate reports what is wrong with the configuration.
func (c ClientConfig) Validate() error {
	if c.ID < 1 || c.ID > MaxClientID || len(c.Key) == 0 {
		return postern.Errorf(postern.Invalid, "the validation service needs an API client number and key").
			WithHint("get them from the service; for YubiCloud at https://upgrade.yubico.com/getapikey/")
	}
	if len(c.URLs) > maxServers {
		return postern.Errorf(postern.Invalid, "more than %d validation servers", maxServers)
	}
	if c.Timeout < 0 || c.Skew < 0 {
		return postern.Errorf(postern.Invalid, "a negative timeout or clock skew")
	}
	for _, s := range c.URLs {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
			return postern.Errorf(postern.Invalid, "%q is not the URL of a validation server", s)
		case u.Scheme == "https", u.Scheme == "http" && (c.Plain || loopback(u.Hostname())):
		default:
			return postern.Errorf(postern.Invalid, "the URL of the validation server %s is not https", s)
		}
	}
	return nil
}

// Fingerprint returns a text that is equal for two configurations exactly if they ask
// the same service in the same way. The key cannot be derived from it.
func (c ClientConfig) Fingerprint() string {
	key := sha256.Sum256(c.Key)
	return fmt.Sprintf("%d %x %q %v %v %q %q %v", c.ID, key, c.URLs, c.Timeout, c.Skew, c.Level, c.Proxy, c.Plain)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Client asks validation servers by Yubico's protocol 2.0. It is safe for concurrent
// use and keeps connections open between checks.
type Client struct {
	config ClientConfig
	http   *http.Client
}

// NewClient returns a client of the service that c describes.
func NewClient(c ClientConfig) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	t := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
		DialContext:         (&net.Dialer{Timeout: c.Timeout}).DialContext,
	}
	if c.Proxy != "" {
		u, err := url.Parse(c.Proxy)
		if err != nil || u.Host == "" {
			return nil, postern.Errorf(postern.Invalid, "the proxy's URL is not valid")
		}
		t.Proxy = http.ProxyURL(u)
	}
	return &Client{config: c, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Answer is a validation server's answer, whose signature, code, nonce and time were
// verified.
type Answer struct {
	Status    Status
	Server    string
	Time      time.Time
	Counted   bool // whether the answer has Seq and Timestamp
	Seq       int64
	Timestamp uint32
}

// Verify asks all servers at once whether a code is valid and returns the first
// conclusive answer. Answers whose signature, code, nonce or time is wrong are ignored.
// If one server has seen the code before, the others' answers are not awaited. It fails
// with [postern.Unavailable] if no server gave a valid answer.
func (c *Client) Verify(ctx context.Context, code Code) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	otp := code.Modhex()
	nonce := newNonce()
	query := c.query(otp, nonce)

	type result struct {
		answer Answer
		err    error
	}
	results := make(chan result, len(c.config.URLs))
	for _, server := range c.config.URLs {
		go func() {
			a, err := c.ask(ctx, server, query, otp, nonce)
			results <- result{a, err}
		}()
	}
	var refused *Answer
	var failed error
	for range c.config.URLs {
		r := <-results // comes by the deadline
		switch {
		case r.err != nil:
			failed = r.err
		case r.answer.Status == StatusOK, r.answer.Status == StatusReplayedOTP, r.answer.Status == StatusBadOTP:
			return r.answer, nil
		case refused == nil || refused.Status == StatusReplayedRequest:
			// REPLAYED_REQUEST: a peer was quicker, and its answer is still to come.
			refused = &r.answer
		}
	}
	if refused != nil {
		return *refused, nil
	}
	return Answer{}, failed
}

func newNonce() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// query returns the signed request.
func (c *Client) query(otp, nonce string) string {
	p := params{
		{"id", strconv.FormatInt(c.config.ID, 10)},
		{"nonce", nonce},
		{"otp", otp},
		{"timestamp", "1"},
	}
	if c.config.Level != "" {
		p = append(p, param{"sl", c.config.Level}, param{
			"timeout",
			strconv.Itoa(max(1, int(c.config.Timeout/time.Second)-1)),
		})
	}
	p = append(p, param{"h", base64.StdEncoding.EncodeToString(p.sign(c.config.Key))})
	q := url.Values{}
	for _, kv := range p {
		q.Set(kv.name, kv.value)
	}
	return q.Encode()
}

// ask asks one server. Its error never contains the request, which contains the code.
func (c *Client) ask(ctx context.Context, server, query, otp, nonce string) (Answer, error) {
	fail := func(format string, args ...any) (Answer, error) {
		return Answer{}, postern.Errorf(postern.Unavailable, "validation server %s: %w", server,
			fmt.Errorf(format, args...))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"?"+query, nil)
	if err != nil {
		return fail("the request cannot be made")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if uerr, ok := errors.AsType[*url.Error](err); ok {
			err = uerr.Err // without the URL
		}
		return fail("%w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fail("its answer is incomplete")
	case resp.StatusCode != http.StatusOK:
		return fail("HTTP status %d", resp.StatusCode)
	case len(body) > maxAnswer:
		return fail("its answer is too long")
	}
	lines, ok := parseAnswer(string(body))
	if !ok {
		return fail("its answer is not one of the protocol")
	}
	a, err := c.verified(lines, otp, nonce)
	if err != nil {
		return fail("%w", err)
	}
	a.Server = server
	return a, nil
}

// verified verifies an answer and returns it.
func (c *Client) verified(lines params, otp, nonce string) (Answer, error) {
	a := Answer{Status: Status(lines.lookup("status"))}
	// A server that does not know this client cannot sign, so its refusal is ignored.
	if !lines.signed(c.config.Key) {
		switch a.Status {
		case StatusNoSuchClient, StatusBadSignature, StatusMissingParameter, StatusOperationNotAllowed:
			if !lines.has("h") {
				return Answer{}, fmt.Errorf("%s: %s", a.Status, a.Status.Words())
			}
		}
		return Answer{}, fmt.Errorf("its answer is not signed with the API key")
	}
	echoed := subtle.ConstantTimeCompare([]byte(lines.lookup("otp")), []byte(otp)) &
		subtle.ConstantTimeCompare([]byte(lines.lookup("nonce")), []byte(nonce))
	if echoed != 1 && (a.Status == StatusOK || lines.has("otp") || lines.has("nonce")) {
		return Answer{}, fmt.Errorf("its answer is to another request")
	}
	var err error
	if a.Time, err = parseTime(lines.lookup("t")); err != nil {
		return Answer{}, fmt.Errorf("its answer has no time")
	}
	if off := a.Time.Sub(c.config.Now()); off.Abs() > c.config.Skew {
		return Answer{}, fmt.Errorf("its clock differs from this one by %s", off.Abs().Round(time.Second))
	}
	if _, known := words[a.Status]; !known {
		return Answer{}, fmt.Errorf("its answer has no status of the protocol")
	}
	a.Seq, a.Timestamp, a.Counted = counted(lines)
	return a, nil
}

// counted returns the key's counters, if the answer has them.
func counted(lines params) (seq int64, timestamp uint32, ok bool) {
	counter, err1 := strconv.ParseUint(lines.lookup("sessioncounter"), 10, 16)
	use, err2 := strconv.ParseUint(lines.lookup("sessionuse"), 10, 8)
	stamp, err3 := strconv.ParseUint(lines.lookup("timestamp"), 10, 24)
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, 0, false
	}
	t := Token{Counter: uint16(counter) & counterMask, Use: uint8(use)}
	return t.Seq(), uint32(stamp), true
}
