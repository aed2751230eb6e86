package remote

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// hook is a reader and a checker that calls a function when it is used.
type hook struct {
	io.Reader
	used func()
}

func (h hook) Read(b []byte) (int, error) { h.used(); return h.Reader.Read(b) }

func (h hook) CheckCode(context.Context, sshd.Attempt) (sshd.Proof, error) {
	h.used()
	return sshd.Proof{Person: "alice"}, nil
}

func (h hook) CheckAccount(context.Context, string) (string, error) { h.used(); return "alice", nil }

// TestAHostIsSuspendedWhileItAsks suspends a host while it sends its question, and while
// its code is checked: it gets no answer to it, and loses its connection.
func TestAHostIsSuspendedWhileItAsks(t *testing.T) {
	const question = `{"user":"alice","code":"x"}`
	for _, path := range []string{codePath, accountPath} {
		for _, during := range []string{"sending", "checking", "nothing"} {
			suspended, asked, cut := false, 0, false
			body, check := hook{strings.NewReader(question), func() {}}, hook{nil, func() { asked++ }}
			switch during {
			case "sending":
				body.used = func() { suspended = true }
			case "checking":
				check.used = func() { suspended = true }
			}
			h := NewHandler(Config{
				Host: func(*http.Request) (string, error) {
					if suspended {
						return "", postern.Errorf(postern.Denied, "the host is suspended")
					}
					return "hv1", nil
				},
				Checker: func(string) sshd.Checker { return check },
				Cut:     func(*http.Request) { cut = true },
				Log:     slog.New(slog.DiscardHandler),
			})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, body))
			if during == "nothing" {
				if w.Code != http.StatusOK || cut || asked != 1 {
					t.Errorf("%s: status %d, cut %v", path, w.Code, cut)
				}
				continue
			}
			if w.Code != http.StatusForbidden || !cut || asked != 0 || strings.Contains(w.Body.String(), "alice") {
				t.Errorf("%s, suspended while %s: status %d, cut %v, %s", path, during, w.Code, cut, w.Body)
			}
		}
	}
}

// TestARefusedQuestionIsNoOutage asks what the server takes for no question, as an account
// of a host can make its agent ask: the server answers, so that nothing else decides.
func TestARefusedQuestionIsNoOutage(t *testing.T) {
	s := httptest.NewServer(NewHandler(Config{
		Host:    func(*http.Request) (string, error) { return "hv1", nil },
		Checker: func(string) sshd.Checker { return checked{t} },
		Check:   func(postern.Event, string, time.Time) error { return nil },
		Log:     slog.New(slog.DiscardHandler),
	}))
	defer s.Close()
	c := Client{URL: s.URL, HTTP: s.Client()}
	address := strings.Repeat("\xff", maxField)
	_, err := c.CheckCode(t.Context(), sshd.Attempt{User: "alice", Code: "x", Address: address})
	if postern.CodeOf(err) != postern.Invalid {
		t.Errorf("a question that is none: %v", err)
	}
}

// TestOneHostKeepsNoneFromWatching has one host wait for more updates than it may, while
// another waits for one.
func TestOneHostKeepsNoneFromWatching(t *testing.T) {
	var begun sync.Map // requests
	release := make(chan struct{})
	h := NewHandler(Config{
		Host: func(r *http.Request) (string, error) {
			host := r.Header.Get("Test-Host")
			if _, again := begun.LoadOrStore(r, true); again && host == "hv1" {
				<-release // so that what waits ends when the test says so
			}
			return host, nil
		},
		Update: func(context.Context, string, Seen) (Update, error) { return Update{}, nil },
		Log:    slog.New(slog.DiscardHandler),
	})
	watch := func(ctx context.Context, host string) (w *httptest.ResponseRecorder) {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, watchPath, nil)
		r.Header.Set("Test-Host", host)
		w = httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	ctx, cancel := context.WithCancel(t.Context())
	many := strings.Repeat("x", 2*maxWatchesHost)
	answers := make(chan string, len(many))
	for range many {
		go func() { answers <- watch(ctx, "hv1").Body.String() }()
	}
	for range len(many) - maxWatchesHost {
		if got := <-answers; !strings.Contains(got, "too many") {
			t.Errorf("one too many: %s", got)
		}
	}
	gone, end := context.WithCancel(t.Context())
	end()
	if got := watch(gone, "hv2").Body.String(); !strings.Contains(got, "hung up") {
		t.Errorf("another host: %s", got)
	}
	cancel()
	close(release)
	for range maxWatchesHost {
		<-answers
	}
}
