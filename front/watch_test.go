package front

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
	"golang.org/x/net/http2"
)

// newLastingApp is an application whose exchanges do not end by themselves: an
// echoing WebSocket, events, a flood of bytes, an upload. Each says "hello"
// first; an upload says so when the first bytes of it have come.
func newLastingApp(t testing.TB, uploading chan<- struct{}) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w).Flush
		switch _, kind, _ := strings.Cut(r.URL.Path[1:], "/"); kind {
		case "socket":
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c,
				"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n")
			_, _ = io.Copy(c, buffered)
		case "events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "hello\n")
			_ = flush()
			<-r.Context().Done()
		case "flood":
			_, _ = io.WriteString(w, "hello\n")
			chunk := make([]byte, 1<<16)
			_, _ = rand.Read(chunk) // compressed, zeros go on for long while nobody reads
			for err := flush(); err == nil; _, err = w.Write(chunk) {
			}
		case "upload":
			_, _ = r.Body.Read(make([]byte, 1))
			uploading <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// lasting is an open exchange.
type lasting struct {
	name string
	r    *bufio.Reader
	w    io.Writer
	done chan error // of an upload
	ctx  context.Context
}

// say sends a line through a socket and waits for its echo.
func (l *lasting) say(line string) error {
	if _, err := fmt.Fprintln(l.w, line); err != nil {
		return err
	}
	got, err := l.r.ReadString('\n')
	if err == nil && got != line+"\n" {
		return fmt.Errorf("%q came back", got)
	}
	return err
}

// ends waits until the exchange is over, and reports whether it did not end.
func (l *lasting) ends() error {
	if l.done != nil {
		for err := error(nil); err == nil; _, err = l.w.Write(make([]byte, 1024)) {
		}
		<-l.done
	} else {
		_, _ = io.Copy(io.Discard, l.r)
	}
	if l.ctx.Err() != nil {
		return errors.New("it goes on")
	}
	return nil
}

// lastingClient opens exchanges of one person over one protocol.
type lastingClient struct {
	*http.Client
	base      string
	uploading <-chan struct{}
}

func (h *rig) lastingClient(t *testing.T, port int, proto string, who *holder,
	uploading <-chan struct{},
) *lastingClient {
	c := h.client1(t, who)
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = proto == "2"
	return &lastingClient{c, fmt.Sprintf("https://localhost:%d", port), uploading}
}

func (c *lastingClient) open(t *testing.T, path string) *lasting {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	t.Cleanup(cancel)
	l := &lasting{name: path, ctx: ctx}
	r, err := http.NewRequestWithContext(ctx, "GET", c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case strings.HasSuffix(path, "/socket"):
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	case strings.HasSuffix(path, "/upload"):
		body, feed := io.Pipe()
		t.Cleanup(func() { feed.Close() })
		r.Method, r.Body, l.w, l.done = "POST", body, feed, make(chan error, 1)
		go func() {
			resp, err := c.Do(r)
			if err == nil {
				resp.Body.Close()
			}
			body.Close()
			l.done <- err
		}()
		if _, err := io.WriteString(feed, "hello"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.uploading:
		case err := <-l.done:
			t.Fatalf("%s: over before it began: %v", path, err)
		}
		return l
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	l.w, _ = resp.Body.(io.Writer)
	l.r = bufio.NewReader(resp.Body)
	if hello, err := l.r.ReadString('\n'); hello != "hello\n" {
		t.Fatalf("%s: %s %q %v", path, resp.Status, hello, err)
	}
	return l
}

// TestWhatLastsEndsWithTheRightToIt opens exchanges that last, and takes from
// each person what they passed by.
func TestWhatLastsEndsWithTheRightToIt(t *testing.T) {
	h := newRig(t)
	uploading := make(chan struct{})
	https, _ := h.serve(t, strings.ReplaceAll(`
localhost:HTTPS {
	require /guarded* {
		person alice bob carol
	}
	rewrite /alias/* /guarded/{path.1}
	encode
	reverse_proxy APP
}
`, "APP", newLastingApp(t, uploading).URL))
	alice, bob, carol := h.person(t, "alice"), h.person(t, "bob"), h.person(t, "carol")
	current().poll(t.Context())

	open := func(who *holder, proto string, paths ...string) (out []*lasting) {
		c := h.lastingClient(t, https, proto, who, uploading)
		for _, path := range paths {
			l := c.open(t, path)
			l.name += " over HTTP/" + proto
			out = append(out, l)
		}
		return out
	}
	all := []string{"/guarded/events", "/guarded/flood", "/guarded/upload", "/alias/events"}
	of := func(who *holder) []*lasting {
		return append(open(who, "1.1", append(all, "/guarded/socket", "/alias/socket")...), open(who, "2", all...)...)
	}
	alices, bobs, carols := of(alice), of(bob), of(carol)
	publics := append(open(bob, "1.1", "/public/socket"), open(nil, "1.1", "/public/socket")...)

	end := func(what string, exchanges []*lasting) {
		t.Helper()
		for _, l := range exchanges {
			if err := l.ends(); err != nil {
				t.Errorf("%s: %s: %v", what, l.name, err)
			}
		}
	}
	goOn := func(exchanges []*lasting) {
		t.Helper()
		for _, l := range exchanges {
			if !strings.HasSuffix(strings.Fields(l.name)[0], "/socket") {
				continue
			}
			if err := l.say("still there"); err != nil {
				t.Errorf("%s was cut: %v", l.name, err)
			}
		}
	}
	h.change(func() {
		h.credentials[bob.cert.SerialNumber.Text(16)] = postern.Credential{
			Person: "bob",
			Status: postern.CredentialRevoked,
		}
	})
	end("revoked", bobs)
	goOn(append(alices, publics...))
	h.change(func() { h.persons["carol"] = postern.Person{Name: "carol", Status: postern.PersonSuspended} })
	end("suspended", carols)
	goOn(append(alices, publics...))
	h.change(func() { h.away = postern.Errorf(postern.Unavailable, "gone") })
	current().asked.Add(-int64(staleAfter))
	end("the store away", alices)
	goOn(publics)
}

// TestTheClockEndsARight asks guards about one request, at different times.
func TestTheClockEndsARight(t *testing.T) {
	h := newRig(t)
	alice := h.person(t, "alice")
	l, trust := polled(t)
	now := time.Now()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{alice.cert}}
	before := fmt.Sprintf("time < timestamp(%q)", now.Add(time.Second).UTC().Format(time.RFC3339Nano))
	for _, c := range []struct {
		gate.Config
		later time.Duration
		want  gate.Reason
	}{
		{gate.Config{Paths: []string{"/"}}, 2 * time.Hour, gate.Expired},
		{gate.Config{Paths: []string{"/"}, Way: gate.Way{Rules: []string{before}}}, time.Second, gate.RuleFailed},
		{
			gate.Config{Paths: []string{"/"}, Way: gate.Way{Rules: []string{before}, Anyone: true}},
			time.Second,
			gate.Closed,
		},
		{gate.Config{Paths: []string{"/"}}, staleAfter + time.Second, gate.Unavailable},
	} {
		g, err := gate.New(c.Config)
		if err != nil {
			t.Fatal(err)
		}
		q := newAuthorizationRequest(r, &siteGuard{Guard: g, trust: trust})
		if f := q.decide(t.Context(), l, now); f.reason != gate.OK {
			t.Errorf("%+v: %s", c.Config, f.reason)
		}
		if f := q.decide(t.Context(), l, now.Add(c.later)); f.reason != c.want {
			t.Errorf("%+v, %s later: %s, want %s", c.Config, c.later, f.reason, c.want)
		}
	}
}

// TestAWebSocketOverHTTP2IsCut does so with extended CONNECT, which Go's server
// offers when its environment says so.
func TestAWebSocketOverHTTP2IsCut(t *testing.T) {
	if !strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1") {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	h := newRig(t)
	https, _ := h.serve(t, "localhost:HTTPS {\n\trequire /guarded* {\n\t\tperson alice\n\t}\n\treverse_proxy "+
		newLastingApp(t, nil).URL+"\n}\n")
	alice := h.person(t, "alice")
	current().poll(t.Context())
	config := h.clientConfig(alice)
	config.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", https), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn := newHTTP2(c)
	stream, err := conn.start(attempt{
		method: "CONNECT", host: "localhost", target: "/guarded/socket",
		headers: []string{":protocol: websocket"},
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	var body string
	for {
		frame, err := conn.f.ReadFrame()
		if err != nil {
			t.Fatalf("after %q: %v", body, err)
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			body += string(f.Data())
			switch body {
			case "hello\n":
				err = conn.f.WriteData(stream, false, []byte("echo\n"))
			case "hello\necho\n":
				h.change(func() {
					h.persons["alice"] = postern.Person{Name: "alice", Status: postern.PersonSuspended}
				})
			}
			if err != nil {
				t.Fatal(err)
			}
		case *http2.RSTStreamFrame:
			if f.StreamID != stream || body != "hello\necho\n" {
				t.Errorf("%v after %q", f, body)
			}
			return
		}
	}
}
