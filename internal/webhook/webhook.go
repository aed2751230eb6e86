// Package webhook posts signed messages to HTTP receivers, as Standard Webhooks does
// (https://www.standardwebhooks.com).
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/postern-project/postern"
)

// Webhook is an HTTP receiver. What is posted is signed: the header webhook-signature is
// "v1," and the base64 HMAC-SHA256 of the headers webhook-id and webhook-timestamp and the
// body, joined by dots. A receiver drops a webhook-id that it has seen.
type Webhook struct {
	URL string `json:"url"`
	// Secret is the file with the key: as it stands, without white space around it, or
	// base64 behind "whsec_".
	Secret string `json:"secret"`
	// Authorization is a file with the value of that header, as "Bearer TOKEN", for a receiver
	// that wants one. A webhook has it, a Secret, or both.
	Authorization string `json:"authorization,omitempty"`
}

// Message is what is posted once, or again with the same ID until the receiver has it.
type Message struct {
	ID   string
	Type string // the media type of Body
	Body []byte
}

// Validate reports what is wrong with the address or the secret.
func (w *Webhook) Validate() error {
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return postern.Errorf(postern.Invalid, "a webhook's address is like https://hooks.example.com/postern")
	}
	_, err = w.headers(Message{}, time.Time{})
	return err
}

// headers returns the headers that show who sends a message. The files are read each time,
// so that they can be replaced.
func (w *Webhook) headers(m Message, now time.Time) (http.Header, error) {
	h := http.Header{}
	if w.Authorization != "" {
		text, err := os.ReadFile(w.Authorization)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "the value of the header Authorization: %w", err)
		}
		value := string(bytes.TrimSpace(text))
		if value == "" || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, postern.Errorf(postern.Invalid, "%s is not one line like: Bearer TOKEN", w.Authorization)
		}
		h.Set("Authorization", value)
	}
	switch {
	case w.Secret == "" && w.Authorization != "":
		return h, nil
	case w.Secret == "":
		return nil, postern.Errorf(postern.Invalid, "nothing shows the webhook's receiver who sends").
			WithHint("give it a secret, or the value of a header Authorization")
	}
	key, err := w.key()
	if err != nil {
		return nil, err
	}
	at := strconv.FormatInt(now.Unix(), 10)
	h.Set("Webhook-Id", m.ID)
	h.Set("Webhook-Timestamp", at)
	h.Set("Webhook-Signature", "v1,"+Sign(key, m.ID, at, m.Body))
	return h, nil
}

// key reads the key.
func (w *Webhook) key() ([]byte, error) {
	text, err := os.ReadFile(w.Secret)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "the webhook's secret: %w", err)
	}
	text = bytes.TrimSpace(text)
	if encoded, ok := strings.CutPrefix(string(text), "whsec_"); ok {
		if text, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return nil, postern.Errorf(postern.Invalid, "the webhook's secret is not base64 behind whsec_")
		}
	}
	if len(text) < 16 {
		return nil, postern.Errorf(postern.Invalid, "the webhook's secret has less than 16 bytes").
			WithHint("make one: openssl rand -hex 32")
	}
	return text, nil
}

// client follows no redirect: what is signed is for one receiver.
var client = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// StatusError is the answer of a receiver that did not take a message.
type StatusError struct {
	Code       int
	Status     string        // "503 Service Unavailable"
	RetryAfter time.Duration // how long it asks to wait; 0 or less if it does not say
}

func (e *StatusError) Error() string { return "the webhook answers " + e.Status }

// retryAfter reads the header Retry-After: seconds or a date (RFC 9110, 10.2.3).
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(seconds, math.MaxInt32)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(now)
	}
	return 0
}

// Post posts a message. Any status but 2xx is an error, [postern.Unavailable], with a
// [StatusError].
func (w *Webhook) Post(ctx context.Context, m Message, now time.Time) error {
	headers, err := w.headers(m, now)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(m.Body))
	if err != nil {
		return err
	}
	req.Header = headers
	req.Header.Set("Content-Type", m.Type)
	req.Header.Set("User-Agent", "postern")
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := err.(*url.Error); ok { //nolint:errorlint // it is what Do returns, and has the whole URL
			err = e.Err
		}
		return postern.Errorf(postern.Unavailable, "the webhook does not answer: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return postern.Errorf(postern.Unavailable, "%w", &StatusError{
			Code: resp.StatusCode, Status: resp.Status, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now),
		})
	}
	return nil
}

// Sign returns the signature of a message, without "v1,".
func Sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
