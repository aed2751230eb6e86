package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// Webhook is an HTTP receiver. A message is posted as JSON, signed as Standard Webhooks
// does it (https://www.standardwebhooks.com): the header webhook-signature is "v1," and the
// base64 HMAC-SHA256 of the headers webhook-id and webhook-timestamp and the body, joined
// by dots. A receiver drops a webhook-id that it has seen.
type Webhook struct {
	URL string `json:"url"`
	// Secret is the file with the key: as it stands, without white space around it, or
	// base64 behind "whsec_".
	Secret string `json:"secret"`
}

func (w *Webhook) validate() error {
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return postern.Errorf(postern.Invalid, "a webhook's address is like https://hooks.example.com/postern")
	}
	_, err = w.key()
	return err
}

// key reads the key. It is read each time, so that it can be replaced.
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

// hooks follows no redirect: what is signed is for one receiver.
var hooks = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// post posts a message. Any status but 2xx is an error.
func (w *Webhook) post(ctx context.Context, m Message, now time.Time) error {
	key, err := w.key()
	if err != nil {
		return err
	}
	body, err := json.Marshal(m.public())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "postern")
	req.Header.Set("Webhook-Id", m.ID)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", "v1,"+Sign(key, m.ID, at, body))
	resp, err := hooks.Do(req)
	if err != nil {
		if e, ok := err.(*url.Error); ok { //nolint:errorlint // it is what Do returns, and has the whole URL
			err = e.Err
		}
		return postern.Errorf(postern.Unavailable, "the webhook does not answer: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	if resp.StatusCode/100 != 2 {
		return postern.Errorf(postern.Unavailable, "the webhook answers %s", resp.Status)
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

// public is what webhooks and commands get of a message.
type public struct {
	ID    string        `json:"id"`
	Alert string        `json:"alert"`
	Text  string        `json:"text"`
	Count int64         `json:"count"`
	Event postern.Event `json:"event"`
}

func (m Message) public() public { return public{m.ID, m.Alert, m.Text, m.Count, m.Event} }

// runCommand runs the receiver's command, with the message as JSON on its standard input
// and its ID and alert in the environment. It is ended with the processes that it has
// started when ctx ends.
func runCommand(ctx context.Context, m Message) error {
	input, err := json.Marshal(m.public())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, m.To.Command[0], m.To.Command[1:]...)
	system.EndGroup(cmd)
	cmd.WaitDelay = time.Second
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "POSTERN_ALERT=" + m.Alert, "POSTERN_ALERT_ID=" + m.ID}
	cmd.Stdin = bytes.NewReader(append(input, '\n'))
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return postern.Errorf(postern.Unavailable, "the command fails: %w", err)
	}
	return nil
}

// subject is that of a mail.
func (m Message) subject() string {
	if m.Count > 1 {
		return fmt.Sprintf("Postern: %s (%d times)", m.Alert, m.Count)
	}
	return "Postern: " + m.Alert
}

// mail is the text of a mail.
func (m Message) mail() string {
	text := fmt.Sprintf("%s\n%s\n", m.Event.Time.UTC().Format("Monday 2 January 2006, 15:04:05 UTC"), m.Text)
	if m.Count > 1 {
		text += fmt.Sprintf("\nThis is the last of %d that matched since the message before.\n", m.Count)
	}
	return text + fmt.Sprintf("\nIt is entry %d of the timeline, and this is the alert %s.\n", m.Event.Index, m.Alert)
}
