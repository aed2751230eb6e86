package otp_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// forger answers as a validation server would, with whatever is asked of it:
// the fields it is given replace the right ones, nil leaves one out.
func forger(t *testing.T, key []byte, change map[string]*string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		m := map[string]string{
			"otp": q.Get("otp"), "nonce": q.Get("nonce"), "status": "OK", "sl": "100",
			"t": time.Now().UTC().Format("2006-01-02T15:04:05Z0000"), "sessioncounter": "1", "sessionuse": "1",
			"timestamp": "1",
		}
		for k, v := range change {
			if v == nil {
				delete(m, k)
			} else {
				m[k] = *v
			}
		}
		if _, fixed := change["h"]; !fixed && key != nil {
			m["h"] = hmacUnder(key, m)
		}
		for k, v := range m {
			fmt.Fprintf(w, "%s=%s\r\n", k, v)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func askOne(t *testing.T, urls ...string) (otp.Answer, error) {
	t.Helper()
	c, err := otp.NewClient(otp.ClientConfig{ID: 1, Key: apiKey, URLs: urls, Timeout: time.Minute})
	must(t, err)
	defer c.Close()
	code, _ := otp.ParseCode("dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh")
	return c.Verify(t.Context(), code)
}

func TestClientBelievesNoForgery(t *testing.T) {
	s := func(v string) *string { return &v }
	old := time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04:05Z0000")
	for _, c := range []struct {
		name   string
		key    []byte
		change map[string]*string
	}{
		{"unsigned", nil, nil},
		{"signed under another key", []byte("another key"), nil},
		{"signed under no key", []byte{}, nil},
		{
			"signature of zeros", apiKey,
			map[string]*string{"h": s(base64.StdEncoding.EncodeToString(make([]byte, 20)))},
		},
		{"signature cut short", apiKey, map[string]*string{"h": s("AAAA")}},
		{"to another code", apiKey, map[string]*string{"otp": s("cccccccccccccccccccccccccccccccccccccccc")}},
		{"to another request", apiKey, map[string]*string{"nonce": s("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")}},
		{"to no code", apiKey, map[string]*string{"otp": nil}},
		{"to no request", apiKey, map[string]*string{"nonce": nil}},
		{"an hour old", apiKey, map[string]*string{"t": s(old)}},
		{"without a time", apiKey, map[string]*string{"t": nil}},
		{"without a status", apiKey, map[string]*string{"status": nil}},
		{"with a status of its own", apiKey, map[string]*string{"status": s("OKAY")}},
		{"unsigned no", nil, map[string]*string{"status": s("NO_SUCH_CLIENT")}},
	} {
		a, err := askOne(t, forger(t, c.key, c.change).URL)
		if err == nil || postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
		if err != nil && strings.Contains(err.Error(), "hknhfjbr") {
			t.Errorf("%s: the code is in the error: %v", c.name, err)
		}
	}
	if a, err := askOne(t, forger(t, apiKey, nil).URL); err != nil || a.Status != otp.StatusOK || !a.Counted ||
		a.Seq != 257 {
		t.Errorf("a right answer: %+v, %v", a, err)
	}
	if a, err := askOne(t, forger(t, apiKey, map[string]*string{"status": s("REPLAYED_OTP")}).URL); err != nil ||
		a.Status != otp.StatusReplayedOTP {
		t.Errorf("a no: %+v, %v", a, err)
	}
}

func TestClientSurvivesBadServers(t *testing.T) {
	var followed atomic.Bool
	good := forger(t, apiKey, nil)
	for name, h := range map[string]http.HandlerFunc{
		"500":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"long":     func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) },
		"twice":    func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("status=OK\nstatus=OK\n")) },
		"no lines": func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<html>")) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/there") {
				followed.Store(true)
			}
			http.Redirect(w, r, "/there", http.StatusFound)
		},
	} {
		bad := httptest.NewServer(h)
		if a, err := askOne(t, bad.URL); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
		if a, err := askOne(t, bad.URL, good.URL); err != nil || a.Status != otp.StatusOK {
			t.Errorf("%s beside a good server: %+v, %v", name, a, err)
		}
		bad.Close()
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
	if _, err := askOne(t, "http://127.0.0.1:1/"); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("no server there: %v", err)
	}
}

func TestClientAsksAllAtOnce(t *testing.T) {
	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(hang)
	if a, err := askOne(t, slow.URL, forger(t, apiKey, nil).URL, slow.URL); err != nil || a.Status != otp.StatusOK {
		t.Errorf("one of three answers: %+v, %v", a, err)
	}
	// Two servers of ours on one database: the slower one has seen the request.
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	tok := h.token(t, "")
	second := httptest.NewServer(h.service)
	defer second.Close()
	c, err := otp.NewClient(otp.ClientConfig{
		ID: 1, Key: apiKey,
		URLs: []string{h.server.URL + "/wsapi/2.0/verify", second.URL + "/wsapi/2.0/verify"},
	})
	must(t, err)
	defer c.Close()
	for range 20 {
		code, _ := otp.ParseCode(touch(t, tok))
		if a, err := c.Verify(t.Context(), code); err != nil || a.Status != otp.StatusOK {
			t.Fatalf("a fresh code: %+v, %v", a, err)
		}
		if a, err := c.Verify(t.Context(), code); err != nil || a.Status != otp.StatusReplayedOTP {
			t.Fatalf("again: %+v, %v", a, err)
		}
	}
}

// TestClientAsksNoProxyOfTheEnvironment: http_proxy must not decide who answers.
func TestClientAsksNoProxyOfTheEnvironment(t *testing.T) {
	var asked atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer proxy.Close()
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	// net/http never takes a proxy for loopback: use a name that is not.
	ask := func(proxy string) error {
		c, err := otp.NewClient(otp.ClientConfig{
			ID: 1, Key: apiKey, URLs: []string{"http://otp.invalid/verify"},
			Plain: true, Proxy: proxy, Timeout: 5 * time.Second,
		})
		must(t, err)
		defer c.Close()
		code, _ := otp.ParseCode("dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh")
		_, err = c.Verify(t.Context(), code)
		return err
	}
	if err := ask(""); err == nil || asked.Load() {
		t.Errorf("the proxy was asked: %v", err)
	}
	if err := ask(proxy.URL); err == nil || !asked.Load() {
		t.Errorf("a proxy that is configured was not asked: %v", err)
	}
}

func TestClientConfigIsChecked(t *testing.T) {
	for name, c := range map[string]otp.ClientConfig{
		"no id":        {Key: apiKey},
		"no key":       {ID: 1},
		"plain http":   {ID: 1, Key: apiKey, URLs: []string{"http://otp.example.com/verify"}},
		"with a query": {ID: 1, Key: apiKey, URLs: []string{"https://otp.example.com/verify?id=%d"}},
		"a password":   {ID: 1, Key: apiKey, URLs: []string{"https://u:p@otp.example.com/verify"}},
		"another kind": {ID: 1, Key: apiKey, URLs: []string{"file:///etc/passwd"}},
		"negative":     {ID: 1, Key: apiKey, Timeout: -1},
	} {
		if _, err := otp.NewClient(c); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := otp.NewClient(otp.ClientConfig{ID: 1, Key: apiKey}); err != nil {
		t.Errorf("YubiCloud: %v", err)
	}
}
