package otp

import (
	"crypto/hmac"
	"crypto/sha1" // the protocol's
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Status is the status in the validation service's answer, as in Yubico's validation
// protocol 2.0.
type Status string

// The statuses of the protocol.
const (
	StatusOK                  Status = "OK"
	StatusBadOTP              Status = "BAD_OTP"
	StatusReplayedOTP         Status = "REPLAYED_OTP"
	StatusReplayedRequest     Status = "REPLAYED_REQUEST"
	StatusBadSignature        Status = "BAD_SIGNATURE"
	StatusMissingParameter    Status = "MISSING_PARAMETER"
	StatusNoSuchClient        Status = "NO_SUCH_CLIENT"
	StatusOperationNotAllowed Status = "OPERATION_NOT_ALLOWED"
	StatusBackendError        Status = "BACKEND_ERROR"
	StatusNotEnoughAnswers    Status = "NOT_ENOUGH_ANSWERS"
)

// words are the meanings of the statuses, for people.
var words = map[Status]string{
	StatusOK:                  "the code is good",
	StatusBadOTP:              "the code is not one of a known, enabled key",
	StatusReplayedOTP:         "the code, or a later one of the same key, was used before",
	StatusReplayedRequest:     "the server has seen this very request before",
	StatusBadSignature:        "the server refused the request's signature: is the API key right?",
	StatusMissingParameter:    "the server misses a parameter of the request",
	StatusNoSuchClient:        "the server does not know the API client's number",
	StatusOperationNotAllowed: "the server does not let this client check codes",
	StatusBackendError:        "the server cannot check codes now",
	StatusNotEnoughAnswers:    "the server could not reach enough of its peers in time",
}

// Words returns the status in words.
func (s Status) Words() string {
	if w, ok := words[s]; ok {
		return w
	}
	return "the server answered with a status that the protocol does not have"
}

const (
	maxQuery  = 4096 // bytes of a request's parameters
	maxParams = 32
	maxAnswer = 8192 // bytes of a server's answer
	minNonce  = 16
	maxNonce  = 40

	// timeLayout is how the protocol writes a time: UTC, with milliseconds
	// as four digits after the Z.
	timeLayout = "2006-01-02T15:04:05Z0.000"
)

// appendTime appends a time as the protocol writes it, in UTC.
func appendTime(b []byte, t time.Time) []byte {
	b = t.UTC().AppendFormat(b, timeLayout)
	n := len(b)
	copy(b[n-4:], b[n-3:]) // no dot
	return b[:n-1]
}

// parseTime reads a time as the protocol writes it. The digits after the Z are
// milliseconds.
func parseTime(s string) (time.Time, error) {
	base, ms, ok := strings.Cut(s, "Z")
	t, err := time.Parse("2006-01-02T15:04:05", base)
	n := 0
	for _, c := range ms {
		if c < '0' || c > '9' {
			ok = false
		}
		n = n*10 + int(c-'0')
	}
	if err != nil || !ok || len(ms) > 4 || n > 999 {
		return time.Time{}, postern.Errorf(postern.Invalid, "not a time of the validation protocol")
	}
	return t.Add(time.Duration(n) * time.Millisecond), nil
}

// validNonce reports whether s is 16 to 40 letters and digits.
func validNonce(s string) bool {
	if len(s) < minNonce || len(s) > maxNonce {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return true
}

// param is one parameter of a request, or one line of an answer.
type param struct{ name, value string }

// params are the parameters of one message, in order of arrival.
type params []param

// lookup returns the value of a parameter, "" if it is missing.
func (p params) lookup(name string) string {
	for _, kv := range p {
		if kv.name == name {
			return kv.value
		}
	}
	return ""
}

func (p params) has(name string) bool {
	return slices.ContainsFunc(p, func(kv param) bool { return kv.name == name })
}

// parseQuery reads the parameters of a request. It fails if there are too many, if one
// is there twice (two parsers could use different ones) or if an escape is malformed.
func parseQuery(query string) (params, bool) {
	if len(query) > maxQuery {
		return nil, false
	}
	p := make(params, 0, 8)
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || len(p) == maxParams || p.has(name) {
			return nil, false
		}
		p = append(p, param{name, value})
	}
	return p, true
}

// parseAnswer reads the lines of an answer: name=value, ended by CRLF or LF.
func parseAnswer(body string) (params, bool) {
	p := make(params, 0, 8)
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || len(p) == maxParams || p.has(name) {
			return nil, false
		}
		p = append(p, param{name, value})
	}
	return p, true
}

// sign returns the HMAC-SHA1 of a message under an API key: over all parameters
// but h, sorted by name, as name=value joined by &.
func (p params) sign(key []byte) []byte {
	sorted := slices.Clone(p)
	slices.SortFunc(sorted, func(a, b param) int { return strings.Compare(a.name, b.name) })
	var text [512]byte
	b := text[:0]
	for _, kv := range sorted {
		if kv.name == "h" {
			continue
		}
		if len(b) > 0 {
			b = append(b, '&')
		}
		b = append(b, kv.name...)
		b = append(b, '=')
		b = append(b, kv.value...)
	}
	mac := hmac.New(sha1.New, key)
	mac.Write(b)
	return mac.Sum(nil)
}

// signed reports whether h is the right signature under key. It is false for an empty
// key.
func (p params) signed(key []byte) bool {
	h, err := base64.StdEncoding.DecodeString(p.lookup("h"))
	return err == nil && len(key) > 0 && hmac.Equal(h, p.sign(key))
}
