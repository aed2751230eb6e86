package remote

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// checked fails when a question reaches it that no honest host asks.
type checked struct{ t *testing.T }

func (c checked) CheckCode(_ context.Context, a sshd.Attempt) (sshd.Proof, error) {
	if a.User == "" || len(a.Code) > maxField || a.Event.Kind != "" && a.Event.Host != "hv1" {
		c.t.Errorf("%+v was asked", a)
	}
	return sshd.Proof{Person: "alice"}, nil
}

func (c checked) CheckAccount(_ context.Context, user string) (string, error) {
	if user == "" {
		c.t.Error("no account was asked about")
	}
	return "alice", nil
}

// FuzzQuestion sends a server what a host may send.
func FuzzQuestion(f *testing.F) {
	f.Add("code", `{"user":"alice","service":"sshd","code":"x",
		"event":{"kind":"ssh.auth","outcome":"ok","object":"alice"}}`)
	f.Add("account", `{"user":"alice"}`)
	f.Add("watch?checkpoint=x&rescue=x", "")
	f.Fuzz(func(t *testing.T, path, body string) {
		h := NewHandler(Config{
			Host:    func(*http.Request) (string, error) { return "hv1", nil },
			Checker: func(string) sshd.Checker { return checked{t} },
			Check: func(e postern.Event, host string, _ time.Time) error {
				if e.Host != host {
					return io.ErrUnexpectedEOF
				}
				return nil
			},
			Log: slog.New(slog.DiscardHandler),
		})
		r := httptest.NewRequest(http.MethodPost, Prefix, strings.NewReader(body))
		r.URL.Path = Prefix + path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var a answer
		if err := decode(w.Body, maxMessage, &a); err != nil {
			t.Errorf("the answer: %v", err)
		}
		if (w.Code == http.StatusOK) != (a.Verdict == yes) {
			t.Errorf("status %d, verdict %q", w.Code, a.Verdict)
		}
	})
}

// answers is a server that answers always the same.
type answers struct {
	status int
	body   string
}

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	body := io.NopCloser(strings.NewReader(a.body))
	return &http.Response{StatusCode: a.status, Body: body, Header: http.Header{}}, nil
}

// FuzzAnswer sends a host what a server may answer: nothing but a clear yes is one.
func FuzzAnswer(f *testing.F) {
	f.Add(200, `{"verdict":"yes","person":"alice","credential":{"kind":"yubikey","id":"x"},"before":2}`)
	f.Add(200, `{"verdict":"denied","reason":"no"}`)
	f.Add(403, `{"verdict":"denied","reason":"suspended"}`)
	f.Add(200, `{"verdict":"yes","before":99}`)
	f.Add(503, "")
	f.Fuzz(func(t *testing.T, status int, body string) {
		c := Client{URL: "http://postern", HTTP: &http.Client{
			Transport:     answers{status, body},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
		proof, err := c.CheckCode(t.Context(), sshd.Attempt{User: "alice", Code: "abcd"})
		if err == nil && (status != http.StatusOK || proof.Password > 4 ||
			proof.Password < 0) {
			t.Errorf("status %d, %q: %+v", status, body, proof)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		if _, err := c.Watch(t.Context(), Seen{}); err == nil && status != http.StatusOK {
			t.Errorf("an update with status %d", status)
		}
	})
}
