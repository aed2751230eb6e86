package export

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/webhook"
	"github.com/postern-project/postern/timeline"
)

// log is a timeline in memory.
type log []postern.Event

func newLog(n int) (l log) {
	for i := range n {
		l = append(l, postern.Event{
			Index: int64(i), Time: time.UnixMicro(1_790_000_000_000_000 + int64(i)).UTC(),
			Kind: postern.EventSignedIn, Outcome: postern.OK, Person: "ann", Object: "/a\nb",
		})
	}
	return l
}

func (l log) LogSize(context.Context) (int64, error) { return int64(len(l)), nil }

func (l log) Events(_ context.Context, f timeline.Filter) (events []postern.Event, err error) {
	for _, e := range l {
		if f.Match(e) && len(events) < f.Limit {
			events = append(events, e)
		}
	}
	return events, nil
}

const key = "0123456789abcdef"

// options are those of an export to an address, with a cursor of its own.
func options(t *testing.T, to string) Options {
	t.Helper()
	o := Options{To: to, Cursor: filepath.Join(t.TempDir(), "cursor"), Report: func(string) {}}
	if strings.HasPrefix(to, "http") {
		o.Secret = filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(o.Secret, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// httpLog is an HTTP receiver that fails as often as fails says, after it has read the request.
type httpLog struct {
	*httptest.Server
	mu    sync.Mutex
	fails int
	got   []int64
	ids   []string
}

func newHTTPLog(t *testing.T, fails int) *httpLog {
	t.Helper()
	h := &httpLog{fails: fails}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		id := r.Header.Get("Webhook-Id")
		want := "v1," + webhook.Sign([]byte(key), id, r.Header.Get("Webhook-Timestamp"), body)
		if r.Header.Get("Webhook-Signature") != want || r.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("not signed, or not NDJSON: %v", r.Header)
		}
		h.ids = append(h.ids, id)
		if h.fails > 0 {
			h.fails--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for line := range strings.Lines(string(body)) {
			h.got = append(h.got, indexOf(t, line))
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func indexOf(t *testing.T, text string) int64 {
	var e postern.Event
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.Object != "/a\nb" {
		t.Errorf("%q: %v", text, err)
	}
	return e.Index
}

func indices(from, to int64) (all []int64) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func TestAnExportGoesOnWhereItEnded(t *testing.T) {
	h := newHTTPLog(t, 0)
	o := options(t, h.URL)
	for _, n := range []int{700, 700, 703} {
		if err := Run(t.Context(), newLog(n), o); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(h.got, indices(0, 703)) {
		t.Errorf("got %d entries: %v", len(h.got), h.got)
	}
}

func TestAReceiverThatIsUnavailableLosesNothing(t *testing.T) {
	h := newHTTPLog(t, 1)
	o := options(t, h.URL)
	if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Unavailable {
		t.Fatal(err)
	}
	h.fails = 1
	ctx, cancel := context.WithCancel(t.Context())
	var reported []string
	o.Follow = true
	o.Report = func(text string) {
		if reported = append(reported, text); text == outage(nil) {
			cancel() // the outage has ended, so the batch was acknowledged
		}
	}
	if err := Run(ctx, newLog(3), o); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.got, indices(0, 3)) || len(reported) != 2 {
		t.Errorf("got %v, reported %v", h.got, reported)
	}
	if len(h.ids) != 3 || h.ids[0] != h.ids[2] || h.ids[1] != h.ids[2] {
		t.Errorf("one batch has the IDs %v", h.ids)
	}
}

// TestExportsThatCannotBegin names what is missing.
func TestExportsThatCannotBegin(t *testing.T) {
	h := newHTTPLog(t, 0)
	late, unsigned := options(t, h.URL), options(t, h.URL)
	late.From, unsigned.Secret = 6, ""
	for want, o := range map[string]Options{"none of the index 6": late, "nothing shows the": unsigned} {
		err := Run(t.Context(), newLog(5), o)
		if postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not: %s", err, want)
		}
	}
}

func TestCursorsThatDoNotFitAreRefused(t *testing.T) {
	h := newHTTPLog(t, 0)
	o := options(t, h.URL)
	if err := Run(t.Context(), newLog(5), o); err != nil {
		t.Fatal(err)
	}
	another := newLog(9)
	another[4].Time = another[4].Time.Add(time.Second)
	gap := slices.Delete(newLog(9), 5, 6)
	for name, l := range map[string]log{"shorter": newLog(4), "another": another, "gap": gap} {
		if err := Run(t.Context(), l, o); postern.CodeOf(err) != postern.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := openCursor(o.Cursor, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), newLog(9), o); postern.CodeOf(err) != postern.Conflict ||
		!strings.Contains(err.Error(), "another export") {
		t.Error(err)
	}
	c.close()
	for _, text := range []string{"", "{", "{}", `{"next":-1,"time":"2026-01-01T00:00:00Z"}`, `{"next":5}`} {
		if err := os.WriteFile(o.Cursor, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), newLog(9), o); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	if !slices.Equal(h.got, indices(0, 5)) {
		t.Errorf("sent: %v", h.got)
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for _, to := range []string{
		"", "-", "logs.example.com", "ftp://127.0.0.1", "http://192.0.2.7/", "syslog+tcp://192.0.2.7:514",
		"syslog+tcp://127.0.0.1",
	} {
		if err := Run(t.Context(), newLog(1), options(t, to)); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", to, err)
		}
	}
}

// rfc5424 is a message as RFC 5424, 6 has it, as far as it is sent here.
var rfc5424 = regexp.MustCompile(
	`(?s)^<86>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]{1,255} postern - gate\.passed ` +
		`\[meta sequenceId="\d+"\] (\{.*\})$`)

func TestSyslogIsFramedByOctetsAndAcknowledgedByTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got []int64
	done := make(chan error, 1)
	go func() { done <- receiveSyslog(t, l, &got) }()
	o := options(t, "syslog+tcp://"+l.Addr().String())
	if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("the connection was reset: %v", err)
	}
	if err := Run(t.Context(), newLog(3), o); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, indices(0, 3)) {
		t.Errorf("got %v", got)
	}
}

// receiveSyslog resets the first connection, and reads the second to its end.
func receiveSyslog(t *testing.T, l net.Listener, got *[]int64) error {
	first, err := l.Accept()
	if err != nil {
		return err
	}
	_ = first.(*net.TCPConn).SetLinger(0)
	first.Close()
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		length, err := r.ReadString(' ')
		if errors.Is(err, io.EOF) && length == "" {
			return nil
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil {
			return err
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return err
		}
		m := rfc5424.FindSubmatch(frame)
		if m == nil {
			return fmt.Errorf("not RFC 5424: %q", frame)
		}
		*got = append(*got, indexOf(t, string(m[1])))
	}
}
