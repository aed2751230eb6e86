package remote

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// Config is a handler's. All of it is needed.
type Config struct {
	// Host returns the host that a request comes from, by its client certificate; an
	// error refuses the request.
	Host func(*http.Request) (string, error)
	// Checker decides about the accounts of a host.
	Checker func(host string) sshd.Checker
	// Check returns what is wrong with an event that a host reports of itself.
	Check func(e postern.Event, host string, now time.Time) error
	// Update returns what a host has not seen yet.
	Update func(ctx context.Context, host string, seen Seen) (Update, error)
	// Cut ends the connection of a request.
	Cut func(*http.Request)
	Log *slog.Logger
}

// How many questions are worked on at once, of all hosts and of one, so that a host
// keeps none from the others, for how long one is, and how many updates a host waits for
// at once.
const (
	maxQuestions     = 512
	maxQuestionsHost = 64
	timeout          = 10 * time.Second
	maxWatchesHost   = 8
)

// Handler answers hosts. It is safe for concurrent use.
type Handler struct {
	Config
	asking, watching *busy
}

// NewHandler returns a handler of what is below [Prefix].
func NewHandler(c Config) *Handler {
	return &Handler{
		Config: c, asking: &busy{max: maxQuestions, maxHost: maxQuestionsHost, by: map[string]int{}},
		watching: &busy{max: math.MaxInt, maxHost: maxWatchesHost, by: map[string]int{}},
	}
}

// busy counts the requests that are worked on.
type busy struct {
	max, maxHost int // of all hosts, and of one

	mu  sync.Mutex
	by  map[string]int // by host
	all int
}

// begin counts a request of a host, and returns what counts its end, or an Unavailable
// error for one too many.
func (b *busy) begin(host string) (end func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= b.max || b.by[host] >= b.maxHost {
		return nil, postern.Errorf(postern.Unavailable, "too many questions at a time")
	}
	b.all++
	b.by[host]++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.all--
		if b.by[host]--; b.by[host] == 0 {
			delete(b.by, host)
		}
	}, nil
}

// ServeHTTP answers one question.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := h.answer(w, r)
	status := http.StatusOK
	if err != nil {
		h.Log.WarnContext(r.Context(), "a host's question was refused", slog.Any(postern.LogError, err))
		a = answerOf(sshd.Proof{}, err)
		status = postern.CodeOf(err).HTTPStatus()
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

// answer decides. An error is about the host or its message, not about who logs in.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	host, err := h.Host(r)
	if err != nil {
		w.Header().Set("Connection", "close") // also in HTTP/2, where it sends GOAWAY
		return nil, err
	}
	if r.Method == http.MethodGet && r.URL.Path == watchPath {
		return h.watch(r, host)
	}
	if r.Method != http.MethodPost || r.URL.Path != codePath && r.URL.Path != accountPath {
		return nil, postern.Errorf(postern.NotFound, "hosts ask by POST to %s or %s", codePath, accountPath)
	}
	end, err := h.asking.begin(host)
	if err != nil {
		return nil, err
	}
	defer end()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
	var q question
	if err := decode(r.Body, maxMessage, &q); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	// It may have been suspended while it sent, or while the code was checked.
	if err := h.accepted(r, host); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	a, err := h.decide(ctx, q, host, r.URL.Path == accountPath)
	if err == nil {
		err = h.accepted(r, host)
	}
	return a, err
}

// accepted fails unless the request still comes from a host that is accepted. It cuts the
// connection of one that is not.
func (h *Handler) accepted(r *http.Request, host string) error {
	now, err := h.Host(r)
	if err != nil && postern.CodeOf(err) != postern.Denied {
		return err
	}
	if now == host {
		return nil
	}
	h.Cut(r)
	return postern.Errorf(postern.Denied, "the host is not accepted any more")
}

// decide answers a question about an account, or about a code.
func (h *Handler) decide(ctx context.Context, q question, host string, account bool) (any, error) {
	if account {
		person, err := h.Checker(host).CheckAccount(ctx, q.User)
		return answerOf(sshd.Proof{Person: person}, err), nil
	}
	a, err := h.attempt(q, host)
	if err != nil {
		return nil, err
	}
	return answerOf(h.Checker(host).CheckCode(ctx, a)), nil
}

// attempt returns what a host asks about a code. The event must be of the login that it
// is about.
func (h *Handler) attempt(q question, host string) (sshd.Attempt, error) {
	a := sshd.Attempt{
		User: q.User, Service: q.Service, Address: q.Address, Code: q.Code, Password: q.Password, Digits: q.Digits,
	}
	if q.Event == nil {
		return a, nil
	}
	e := *q.Event
	if e.Host == "" { // of the host itself, as its parts around sshd say
		e.Host = host
	}
	e.Time = time.Now().UTC() // the server's, whatever the host's clock says
	switch err := h.Check(e, host, time.Now()); {
	case err != nil:
		return a, postern.Errorf(postern.Invalid, "the event of the login: %w", err)
	case e.Kind != postern.EventSSHAuth && e.Kind != postern.EventPAMAuth, e.Outcome != postern.OK,
		e.Object != sshd.Printable(q.User):
		return a, postern.Errorf(postern.Invalid, "the event is not of this login")
	}
	a.Event = e
	return a, nil
}
