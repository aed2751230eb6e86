package relay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

var quiet = slog.New(slog.DiscardHandler)

// server is a receiving server over a real store, which can be unavailable, or lose
// its answer.
type server struct {
	*httptest.Server
	db   *store.DB
	mode atomic.Int32
}

const (
	available   int32 = iota
	unavailable       // answers 503 and records nothing
	losesReply        // records events, and closes the connection without an answer
)

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{db: storetest.Open(t)}
	h, err := relay.NewHandler(relay.Config{Source: func(*http.Request) (relay.Source, error) {
		return relay.Source{Name: "person:hv1", Host: "hv1"}, nil
	}}, s.db.Relay(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s.mode.Load() {
		case unavailable:
			http.Error(w, "unavailable", http.StatusServiceUnavailable)
		case losesReply:
			h.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// objects returns what the timeline has of an agent: the objects of its events,
// and "lost N" for those that are missing.
func (s *server) objects(t *testing.T) []string {
	t.Helper()
	var got []string
	for _, e := range storetest.Events(t, s.db) {
		switch e.Kind {
		case postern.EventLibvirtCall:
			got = append(got, e.Object)
		case postern.EventAgentLost:
			got = append(got, fmt.Sprint("lost ", e.Count))
		}
	}
	return got
}

func open(t *testing.T, dir string, size int64) *relay.Spool {
	t.Helper()
	s, err := relay.OpenSpool(relay.SpoolConfig{Dir: dir, MaxBytes: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func sender(t *testing.T, s *server, spool *relay.Spool) *relay.Sender {
	t.Helper()
	c, err := relay.NewSender(relay.SenderConfig{
		URL: s.URL + relay.Path, Host: "hv1", Wait: time.Millisecond,
		MaxWait: 2 * time.Millisecond,
	}, spool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func call(object string) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: postern.EventLibvirtCall, Outcome: postern.OK, Host: "hv1", Object: object,
		Links: []postern.Link{
			{Kind: postern.LinkSession, ID: "hv1/boot/7"},
			{Kind: postern.LinkDomain, ID: "7732fd75-b914-4350-9d4b-bd11a6ba383a"},
		},
		Details: map[string]string{"procedure": "domainDestroy"},
	}
}

func add(t *testing.T, s *relay.Spool, objects ...string) {
	t.Helper()
	for _, o := range objects {
		if err := s.Append(call(o)); err != nil {
			t.Fatal(err)
		}
	}
}

// sendAll sends until there is no more.
func sendAll(t *testing.T, c *relay.Sender) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = c.Send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("the timeline has %q, want %q", got, want)
	}
}

func TestEventsWaitForTheServerAndCountOnce(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	spool := open(t, dir, 0)
	c := sender(t, s, spool)
	s.mode.Store(unavailable)
	add(t, spool, "a", "b")
	if _, err := c.Send(t.Context()); postern.CodeOf(err) != postern.Unavailable {
		t.Fatalf("a server that is unavailable: %v", err)
	}
	s.mode.Store(losesReply)
	if _, err := c.Send(t.Context()); postern.CodeOf(err) != postern.Unavailable {
		t.Fatalf("a server that loses its answer: %v", err)
	}
	equal(t, s.objects(t), "a", "b")
	// The agent ends without an answer, and starts again.
	spool.Close()
	s.mode.Store(available)
	spool = open(t, dir, 0)
	add(t, spool, "c")
	sendAll(t, sender(t, s, spool))
	equal(t, s.objects(t), "a", "b", "c")
	// And once more, though all is acknowledged.
	spool.Close()
	spool = open(t, dir, 0)
	add(t, spool, "d")
	sendAll(t, sender(t, s, spool))
	equal(t, s.objects(t), "a", "b", "c", "d")
	report, err := s.db.Timeline().VerifyLog(t.Context())
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("%v %v", report.Problems, err)
	}
}

func TestSenderTriesUntilTheServerIsThere(t *testing.T) {
	s := newServer(t)
	spool := open(t, t.TempDir(), 0)
	s.mode.Store(unavailable)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); sender(t, s, spool).Run(ctx) }()
	add(t, spool, "a")
	s.mode.Store(losesReply)
	for len(s.objects(t)) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("nothing comes")
		}
	}
	s.mode.Store(available)
	add(t, spool, "b")
	for len(s.objects(t)) < 2 {
		if t.Context().Err() != nil {
			t.Fatal("nothing comes")
		}
	}
	stop()
	<-done
	equal(t, s.objects(t), "a", "b")
}

func TestSpoolIsBoundedAndCountsWhatItDrops(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	const size, n = 64 << 10, 2000
	spool := open(t, dir, size)
	add(t, spool, "first")
	sendAll(t, sender(t, s, spool))
	for i := range n {
		add(t, spool, fmt.Sprint(i))
	}
	var total int64
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
		total += info.Size()
	}
	if total > size+100 {
		t.Errorf("the spool takes %d bytes of %d", total, size)
	}
	sendAll(t, sender(t, s, spool))
	got := s.objects(t)
	var lost int
	if _, err := fmt.Sscanf(got[1], "lost %d", &lost); err != nil || lost == 0 || lost+len(got)-2 != n {
		t.Errorf("%d events, %d recorded and %q", n, len(got)-2, got[1])
	}
	if got[len(got)-1] != fmt.Sprint(n-1) {
		t.Errorf("the newest is %s", got[len(got)-1])
	}
}

func TestSpoolAfterACrash(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	spool := open(t, dir, 0)
	if _, err := relay.OpenSpool(relay.SpoolConfig{Dir: dir}); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a second agent on one spool: %v", err)
	}
	add(t, spool, "a", "b")
	spool.Close()
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names[0], text[:len(text)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	spool = open(t, dir, 0)
	add(t, spool, "c") // has the number of b, which was never sent
	sendAll(t, sender(t, s, spool))
	equal(t, s.objects(t), "a", "c")
	// A line that rots on disk is counted, and its number not given again.
	add(t, spool, "d", "e")
	spool.Close()
	if text, err = os.ReadFile(names[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names[0], []byte(strings.Replace(string(text), `{"seq":3`, `{"s`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	spool = open(t, dir, 0)
	add(t, spool, "f")
	sendAll(t, sender(t, s, spool))
	equal(t, s.objects(t), "a", "c", "lost 1", "e", "f")
}

func TestOneRefusedEventDoesNotHoldBackTheOthers(t *testing.T) {
	s := newServer(t)
	spool := open(t, t.TempDir(), 0)
	add(t, spool, "a", "b")
	forged := call("x")
	forged.Person = "alice"
	if err := spool.Append(forged); err != nil {
		t.Fatal(err)
	}
	add(t, spool, "c")
	sendAll(t, sender(t, s, spool))
	equal(t, s.objects(t), "a", "b", "lost 1", "c")
}

// post sends lines as they are.
func (s *server) post(t *testing.T, lines ...string) int {
	t.Helper()
	res, err := http.Post(s.URL+relay.Path, "application/jsonl", strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

const head = `{"agent":"00112233445566778899aabbccddeeff","host":"hv1"}`

func encode(t *testing.T, seq int64, e postern.Event) string {
	t.Helper()
	b, err := json.Marshal(relay.Numbered{Seq: seq, Event: e})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// suspending is a body: the host that sends it is suspended meanwhile.
type suspending struct {
	io.Reader
	suspended bool
}

func (s *suspending) Read(b []byte) (int, error) { s.suspended = true; return s.Reader.Read(b) }

// TestASenderIsSuspendedWhileItSends suspends a host while it sends a batch, which is not
// written.
func TestASenderIsSuspendedWhileItSends(t *testing.T) {
	body := &suspending{Reader: strings.NewReader(head + "\n" + encode(t, 1, call("a")))}
	s := newServer(t)
	h, err := relay.NewHandler(relay.Config{Source: func(*http.Request) (relay.Source, error) {
		if body.suspended {
			return relay.Source{}, postern.Errorf(postern.Denied, "the host is suspended")
		}
		return relay.Source{Name: "joined:hv1", Host: "hv1"}, nil
	}}, s.db.Relay(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, relay.Path, body))
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
	equal(t, s.objects(t))
}

// TestASlowSenderKeepsNoneFromSending has one host begin more batches than are received at
// a time: those of another are taken.
func TestASlowSenderKeepsNoneFromSending(t *testing.T) {
	s := newServer(t)
	h, err := relay.NewHandler(relay.Config{Source: func(r *http.Request) (relay.Source, error) {
		return relay.Source{Name: "joined:" + r.Header.Get("Test-Host"), Host: r.Header.Get("Test-Host")}, nil
	}}, s.db.Relay(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	post := func(host string, body io.Reader) int {
		r := httptest.NewRequest(http.MethodPost, relay.Path, body)
		r.Header.Set("Test-Host", host)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	var sending sync.WaitGroup
	var begun []*io.PipeWriter
	refused := make(chan struct{}, 20)
	for range cap(refused) {
		out, in := io.Pipe()
		begun = append(begun, in)
		sending.Go(func() {
			defer out.Close()
			if post("hv2", out) == http.StatusTooManyRequests {
				refused <- struct{}{}
			}
		})
	}
	for range cap(refused) - 2 {
		<-refused
	}
	if status := post("hv1", strings.NewReader(head+"\n"+encode(t, 1, call("a")))); status != http.StatusOK {
		t.Errorf("another host's batch: status %d", status)
	}
	for _, in := range begun {
		in.Close()
	}
	sending.Wait()
}

// slowly is a store that keeps a batch once it may.
type slowly struct{ begun, may chan struct{} }

func (s slowly) Relay(_ context.Context, _, _ string, batch []relay.Numbered) (int64, error) {
	s.begun <- struct{}{}
	<-s.may
	return batch[len(batch)-1].Seq, nil
}

// TestABatchWaitsForItsTurn has more hosts send at once than the server works for: none is
// refused.
func TestABatchWaitsForItsTurn(t *testing.T) {
	store := slowly{make(chan struct{}), make(chan struct{})}
	h, err := relay.NewHandler(relay.Config{
		Source: func(r *http.Request) (relay.Source, error) {
			return relay.Source{Name: r.Header.Get("Test-Source"), Host: "hv1"}, nil
		},
		Busy: 1,
	}, store, quiet)
	if err != nil {
		t.Fatal(err)
	}
	const hosts = 5
	codes := make(chan int)
	for i := range hosts {
		r := httptest.NewRequest(http.MethodPost, relay.Path, strings.NewReader(head+"\n"+encode(t, 1, call("a"))))
		r.Header.Set("Test-Source", fmt.Sprint(i))
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			codes <- w.Code
		}()
	}
	for range hosts {
		<-store.begun
		store.may <- struct{}{}
		if code := <-codes; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
	}
}

func TestForgedEventsAreRefused(t *testing.T) {
	s := newServer(t)
	for name, forge := range map[string]func(*postern.Event){
		"a code's check": func(e *postern.Event) { e.Kind = postern.EventOTP },
		"a code's acceptance": func(e *postern.Event) {
			e.Kind, e.Object, e.Details = postern.EventSSHAuth, "alice", map[string]string{"method": "code"}
		},
		"another's check":   func(e *postern.Event) { e.Kind, e.Object = postern.EventCheckSSH, "hv2" },
		"no kind":           func(e *postern.Event) { e.Kind = "" },
		"an index":          func(e *postern.Event) { e.Index = 1 },
		"a person":          func(e *postern.Event) { e.Person = "alice" },
		"another host":      func(e *postern.Event) { e.Host = "hv2" },
		"no host":           func(e *postern.Event) { e.Host = "" },
		"the future":        func(e *postern.Event) { e.Time = time.Now().Add(time.Hour) },
		"long ago":          func(e *postern.Event) { e.Time = time.Now().AddDate(-1, 0, 0) },
		"no time":           func(e *postern.Event) { e.Time = time.Time{} },
		"an outcome":        func(e *postern.Event) { e.Outcome = "fine" },
		"less than no time": func(e *postern.Event) { e.Took = -1 },
		"an address":        func(e *postern.Event) { e.Address = "from somewhere" },
		"a credential": func(e *postern.Event) {
			e.Links[0] = postern.Link{Kind: "yubikey", ID: "vvccccbdefgh"}
		},
		"a certificate of no login": func(e *postern.Event) {
			e.Links[0] = postern.Link{Kind: string(postern.SSHCertificate), ID: "4711"}
		},
		"another host's login": func(e *postern.Event) {
			e.Links[0] = postern.Link{Kind: postern.LinkLogin, ID: "hv2/00"}
		},
		"many links": func(e *postern.Event) {
			for range 20 {
				e.Links = append(e.Links, e.Links[0])
			}
		},
		"another host's session":  func(e *postern.Event) { e.Links[0].ID = "hv2/boot/7" },
		"a host that begins like": func(e *postern.Event) { e.Links[0].ID = "hv11/boot/7" },
		"a connection":            func(e *postern.Event) { e.Links[0].Kind = postern.LinkConnection },
		"a detail":                func(e *postern.Event) { e.Details["payload"] = "secret" },
	} {
		e := call("vm")
		forge(&e)
		if status := s.post(t, head, encode(t, 1, call("honest")), encode(t, 2, e)); status != http.StatusBadRequest {
			t.Errorf("%s: status %d", name, status)
		}
	}
	honest := encode(t, 1, call("honest"))
	for name, lines := range map[string][]string{
		"no sender":        {honest},
		"a sender's name":  {`{"agent":"X","host":"hv1"}`, honest},
		"no JSON":          {head, "nonsense"},
		"a field":          {head, `{"seq":1,"event":{},"more":1}`},
		"falling numbers":  {head, encode(t, 2, call("x")), honest},
		"number 0":         {head, encode(t, 0, call("x"))},
		"a huge number":    {head, encode(t, 1<<60, call("x"))},
		"a line too long":  {head, `{"seq":1,"event":{"object":"` + strings.Repeat("x", 70<<10) + `"}}`},
		"a batch too long": {head, strings.Repeat(honest+"\n", 4000)},
	} {
		if status := s.post(t, lines...); status != http.StatusBadRequest {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if status := s.post(t, strings.Replace(head, "hv1", "hv2", 1), honest); status != http.StatusForbidden {
		t.Errorf("a sender that speaks for another host: status %d", status)
	}
	equal(t, s.objects(t))
	if status := s.post(t, head, honest); status != http.StatusOK {
		t.Errorf("an honest one: status %d", status)
	}
	equal(t, s.objects(t), "honest")
}

// TestAgentIsHeardOfWithoutEvents has a sender with nothing to send: the server knows that
// it is there, and counts it as late when it is not any more.
func TestAgentIsHeardOfWithoutEvents(t *testing.T) {
	s := newServer(t)
	spool, err := relay.OpenSpool(relay.SpoolConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	sender, err := relay.NewSender(relay.SenderConfig{URL: s.URL + relay.Path, Host: "hv1", Beat: time.Millisecond},
		spool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sending.Go(func() { sender.Run(ctx) })
	heard := func() time.Time {
		agents, err := s.db.Relay().Agents(t.Context())
		if err != nil || len(agents) > 1 {
			t.Fatal(agents, err)
		}
		for _, a := range agents {
			return a.Heard
		}
		return time.Time{}
	}
	for n, last := 0, heard(); n < 3; posterntest.Pause(t) {
		if now := heard(); now.After(last) {
			n, last = n+1, now
		}
	}
	stop()
	sending.Wait()
	if got := s.objects(t); len(got) != 0 {
		t.Errorf("the timeline has %q", got)
	}
}
