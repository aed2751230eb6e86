package agent

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/remote"
)

// TestServersInTurn asks servers of which some do not answer: one is dead, one hangs, one
// cannot answer now.
func TestServersInTurn(t *testing.T) {
	var asked []string
	serve := func(name string, status int) *url.URL {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, name+" "+string(body))
			w.WriteHeader(status)
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	dead := serve("dead", 0)
	dead.Host = "127.0.0.1:1"
	hung := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(hung); silent.Close() })
	mute, err := url.Parse(silent.URL)
	if err != nil {
		t.Fatal(err)
	}
	turn := &inTurn{
		servers: []*url.URL{dead, mute, serve("busy", http.StatusServiceUnavailable), serve("well", http.StatusOK)},
		next:    http.DefaultTransport,
	}
	ask := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://postern/api", strings.NewReader("code"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: turn}).Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return string(text), err
	}
	for range 2 {
		if got, err := ask(); got != "well" || err != nil {
			t.Errorf("%q %v", got, err)
		}
	}
	if got := strings.Join(asked, ", "); got != "busy code, well code, well code" {
		t.Errorf("asked %q", got)
	}
}

// TestTooManyServers bounds the servers of an agent: each has its share of the time in
// which it waits for an update.
func TestTooManyServers(t *testing.T) {
	urls := slices.Repeat([]string{"https://id.example.com"}, remote.MaxServers+1)
	if _, err := parseServers(urls); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("%d servers: %v", len(urls), err)
	}
	if _, err := parseServers(urls[1:]); err != nil {
		t.Error(err)
	}
}
