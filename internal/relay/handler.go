package relay

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// Store keeps events for good.
type Store interface {
	// Relay appends to the timeline, in one durable transaction, those events of
	// an agent whose numbers are above the highest that is recorded, and returns the
	// highest now. A gap in the numbers becomes an event with their count, see [Gap].
	// An empty batch says that the agent is there. It is safe for concurrent use, on several
	// servers at once.
	Relay(ctx context.Context, source, agent string, batch []Numbered) (seq int64, err error)
}

// Source identifies a sender.
type Source struct {
	Name string // the key under which the server remembers it
	Host string // the host that its events are of
	Self bool   // that host is the server itself: events need not name it
}

// Config is a receiving handler's.
type Config struct {
	// Source says who sends a request; an error refuses it. It must be set.
	Source func(*http.Request) (Source, error)
	// Complete adds to a batch of a host, before it is kept, what the host does not know or
	// may not say: whose an account is, and who did what. nil adds nothing.
	Complete func(ctx context.Context, batch []Numbered)
	Now      func() time.Time // the clock; nil for the real one
	// Busy is the most batches that are received at a time, 8 if zero.
	Busy int
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Source == nil || c.Busy < 0 {
		return postern.Errorf(postern.Invalid, "receiving events: Source is not set, or a number is negative")
	}
	return nil
}

// Handler receives batches. It is safe for concurrent use.
type Handler struct {
	c     Config
	store Store
	log   *slog.Logger
	slots chan struct{}

	mu     sync.Mutex
	taking map[string]int // batches at a time, by source
}

// NewHandler returns a handler that keeps events in the store.
func NewHandler(c Config, store Store, log *slog.Logger) (*Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Busy == 0 {
		c.Busy = 8
	}
	return &Handler{c: c, store: store, log: log, slots: make(chan struct{}, c.Busy), taking: map[string]int{}}, nil
}

// ServeHTTP takes a batch and answers when its events are durable.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seq, err := h.take(w, r)
	a, status := answer{Seq: seq}, http.StatusOK
	if err != nil {
		code := postern.CodeOf(err)
		a.Error, a.Hint, status = err.Error(), postern.HintOf(err), code.HTTPStatus()
		if code == postern.Internal {
			a.Error = "something broke"
		}
		h.log.WarnContext(r.Context(), "a batch of events was refused", slog.Any(postern.LogError, err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

func (h *Handler) take(w http.ResponseWriter, r *http.Request) (int64, error) {
	source, err := h.c.Source(r)
	if err != nil {
		return 0, err
	}
	if r.Method != http.MethodPost || r.URL.Path != Path {
		return 0, postern.Errorf(postern.NotFound, "events are sent by POST to %s", Path)
	}
	end, ok := h.begin(r.Context(), source.Name)
	if !ok {
		return 0, postern.Errorf(postern.TooMany, "too many batches at a time")
	}
	defer end()
	// One that sends slowly does not keep its slot.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(postTimeout))
	agent, batch, err := parseBatch(http.MaxBytesReader(w, r.Body, maxBatchBytes), source, h.c.Now())
	if err != nil {
		return 0, err
	}
	// Again: it may have been suspended while it sent.
	if now, err := h.c.Source(r); err != nil || now != source {
		return 0, cmp.Or(err, error(errNotAccepted))
	}
	if h.c.Complete != nil {
		h.c.Complete(r.Context(), batch)
	}
	return h.store.Relay(r.Context(), source.Name, agent, batch)
}

// maxBusySource is how many batches of one source are received at a time: its agent sends
// one after the other, and the server may not know yet that a connection is lost.
const maxBusySource = 2

// slotWait is how long a batch waits for its turn. All hosts send at once after the server
// was started again: one that is refused tries again much later.
const slotWait = 10 * time.Second

// begin counts a batch of a source, waits for its turn, and returns what ends it; ok is
// false for one too many.
func (h *Handler) begin(ctx context.Context, source string) (end func(), ok bool) {
	if !h.enter(source) {
		return nil, false
	}
	wait := time.NewTimer(slotWait)
	defer wait.Stop()
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; h.leave(source) }, true
	case <-wait.C:
	case <-ctx.Done():
	}
	h.leave(source)
	return nil, false
}

func (h *Handler) enter(source string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taking[source] >= maxBusySource {
		return false
	}
	h.taking[source]++
	return true
}

func (h *Handler) leave(source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taking[source]--; h.taking[source] == 0 {
		delete(h.taking, source)
	}
}

var errNotAccepted = postern.Errorf(postern.Denied, "the sender is not accepted any more")

// parseBatch reads a batch of a source and checks all of it.
func parseBatch(body io.Reader, source Source, now time.Time) (agent string, batch []Numbered, err error) {
	in := bufio.NewScanner(body)
	in.Buffer(nil, maxLine+1)
	var head header
	if !in.Scan() || json.Unmarshal(in.Bytes(), &head) != nil || !validAgent(head.Agent) {
		return "", nil, postern.Errorf(postern.Invalid, "a batch begins with a line that names its sender")
	}
	clock := clockOf(head.Now, now)
	if head.Host != source.Host {
		return "", nil, postern.Errorf(postern.Denied,
			"the sender calls its host %.80q, and may only report events of %q", head.Host, source.Host).
			WithHint("name this host as its certificate's person is named, %s", source.Host)
	}
	for in.Scan() {
		n, err := parseLine(in.Bytes(), source, clock, now)
		if err == nil && len(batch) > 0 && n.Seq <= batch[len(batch)-1].Seq {
			err = fmt.Errorf("the numbers do not rise")
		}
		if err == nil && len(batch) == maxBatchEvents {
			err = fmt.Errorf("more than %d events", maxBatchEvents)
		}
		if err != nil {
			return "", nil, postern.Errorf(postern.Invalid, "event %d of the batch: %w", len(batch)+1, err)
		}
		batch = append(batch, n)
	}
	if err := in.Err(); err != nil {
		code := postern.Unavailable // cut short: it may come again
		if _, long := errors.AsType[*http.MaxBytesError](err); long || errors.Is(err, bufio.ErrTooLong) {
			code = postern.Invalid
		}
		return "", nil, postern.Errorf(code, "read the batch: %w", err)
	}
	return head.Agent, batch, nil
}

func parseLine(line []byte, source Source, clock clock, now time.Time) (Numbered, error) {
	var n Numbered
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil || d.More() {
		return n, fmt.Errorf("not an event as JSON")
	}
	if n.Seq < 1 || n.Seq > maxSeq {
		return n, fmt.Errorf("the number %d", n.Seq)
	}
	n.Event.Time = n.Event.Time.Add(-clock.ahead)
	if err := Check(n.Event, source.Host, now); err != nil {
		return n, err
	}
	if n.Event.Outcome == postern.OK && n.Event.Details["method"] == "code" {
		return n, fmt.Errorf("that a code was accepted is for the server to report, which checked it")
	}
	clock.mark(&n.Event)
	if source.Self {
		n.Event.Host = ""
	}
	return n, nil
}

// maxSeq bounds a sender's numbers, so that gaps add up.
const maxSeq = 1 << 53

// Gap returns the event that says that n of a source's events were lost.
func Gap(source string, n int64, now time.Time) postern.Event {
	return postern.Event{
		Time: now, Kind: postern.EventAgentLost, Outcome: postern.Failed, Object: source, Count: n,
		Reason: "the agent's spool was full, or they were refused or damaged",
	}
}
