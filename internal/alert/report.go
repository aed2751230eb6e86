package alert

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/postern-project/postern"
)

const (
	poll     = time.Second
	batch    = 500            // entries that are read at once
	tooOld   = 48 * time.Hour // older entries are not reported, as after the server was off for long
	givenUp  = 72 * time.Hour // after which a message is not tried any more
	lease    = 2 * time.Minute
	atOnce   = 8 // messages that are delivered at a time
	firstTry = 2 * time.Second
)

// LastTry is the longest time between two tries to deliver a message.
const LastTry = time.Hour

// Progress is how far alerts have come, and the entries behind that.
type Progress struct {
	Version int64 // grows with each change
	Next    int64 // index of the first entry that was not read
	State   []byte
	Events  []postern.Event
}

// Store keeps how far alerts have come, and the messages that wait. It is safe for
// concurrent use, by several servers.
type Store interface {
	// StartAlerts sets the cursor to the timeline's end, unless there is one. StopAlerts
	// forgets it, and all messages.
	StartAlerts(context.Context) error
	StopAlerts(context.Context) error
	// ReadAlerts returns the progress, with up to n entries behind it.
	ReadAlerts(ctx context.Context, n int) (Progress, error)
	// AdvanceAlerts stores the progress and queues messages, in one step. It does nothing
	// if the progress that is stored is not of p.Version any more.
	AdvanceAlerts(ctx context.Context, p Progress, queue []Message) error
	// DueAlerts leases up to n messages that are due, those that were tried least first: no
	// other caller gets them before the lease ends. One that would be due after more than
	// LastTry is due, too: it was queued while the clock was ahead.
	DueAlerts(ctx context.Context, now time.Time, n int, lease time.Duration) ([]Message, error)
	// DropAlert forgets a message, and appends events. RetryAlert has it due again later.
	DropAlert(ctx context.Context, id string, events ...postern.Event) error
	RetryAlert(ctx context.Context, id string, due time.Time) error
	// NewAddress reports whether the person of an entry has signed in before it, and never
	// from its address.
	NewAddress(context.Context, postern.Event) (bool, error)
}

// Config is a reporter's.
type Config struct {
	Alerts []Alert
	Store  Store
	// Sentence says in words what an entry reports.
	Sentence func(context.Context, postern.Event) string
	// Mail sends a mail; nil: none can be sent.
	Mail func(ctx context.Context, id, to, subject, text string) error
	Log  *slog.Logger
	Now  func() time.Time // the clock; nil for the real one
}

// Reporter reports entries of the timeline.
type Reporter struct {
	Config
	rules []rule
}

type rule struct {
	Alert
	program cel.Program
}

// New returns a reporter, or Invalid if an alert is wrong.
func New(c Config) (*Reporter, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Reporter{Config: c}
	known := map[string]bool{}
	for _, a := range c.Alerts {
		a = a.complete()
		if err := a.Validate(); err != nil {
			return nil, err
		}
		if known[a.Name] {
			return nil, postern.Errorf(postern.Invalid, "there are two alerts %s", a.Name)
		}
		known[a.Name] = true
		for _, to := range a.To {
			if to.Mail != "" && c.Mail == nil {
				return nil, postern.Errorf(postern.Invalid, "alert %s: no mail can be sent", a.Name).
					WithHint("name a mail server: mail smtp://…")
			}
		}
		program, err := compile(a.When)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "alert %s: %w", a.Name, err)
		}
		r.rules = append(r.rules, rule{a, program})
	}
	return r, nil
}

// Run reports until ctx ends. Without alerts it forgets those of earlier.
func (r *Reporter) Run(ctx context.Context) {
	if len(r.rules) == 0 {
		r.repeat(ctx, true, r.Store.StopAlerts)
		return
	}
	r.repeat(ctx, true, r.Store.StartAlerts)
	var delivering sync.WaitGroup
	delivering.Go(func() { r.repeat(ctx, false, r.Deliver) }) // of its own, as a receiver may be slow
	r.repeat(ctx, false, r.Read)
	delivering.Wait()
}

// repeat does something each second until ctx ends or, if once is enough, it succeeds.
func (r *Reporter) repeat(ctx context.Context, once bool, do func(context.Context) error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for failed := ""; ; {
		err := do(ctx)
		switch {
		case err == nil && once:
			return
		case err == nil:
			failed = ""
		case ctx.Err() == nil && err.Error() != failed: // the same is logged once
			failed = err.Error()
			r.Log.ErrorContext(ctx, "alerts are late", slog.Any(postern.LogError, err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pending is what is known of an alert between two messages.
type pending struct {
	Since time.Time      `json:"since,omitzero"` // when the first of those that are counted for Within happened
	Sum   int64          `json:"sum,omitempty"`  // of them
	Sent  time.Time      `json:"sent,omitzero"`  // when the last message was queued
	Held  int64          `json:"held,omitempty"` // what matched since and is not reported yet
	Event *postern.Event `json:"event,omitempty"`
}

// Read reads the entries that were not read, and queues messages about those that match.
func (r *Reporter) Read(ctx context.Context) error {
	for {
		p, err := r.Store.ReadAlerts(ctx, batch)
		if err != nil {
			return err
		}
		more, err := r.read(ctx, p)
		if err != nil || !more {
			return err
		}
	}
}

func (r *Reporter) read(ctx context.Context, p Progress) (more bool, err error) {
	state := map[string]*pending{}
	if len(p.State) > 0 {
		if err := json.Unmarshal(p.State, &state); err != nil {
			return false, err
		}
	}
	var queue []Message
	for _, e := range p.Events {
		p.Next = e.Index + 1
		if e.Kind == postern.EventAlertSent || r.Now().Sub(e.Time) > tooOld {
			continue
		}
		messages, err := r.judge(ctx, state, e)
		if err != nil {
			return false, err
		}
		queue = append(queue, messages...)
	}
	queue = append(queue, r.held(ctx, state)...)
	if len(p.Events) == 0 && len(queue) == 0 {
		return false, nil
	}
	if p.State, err = json.Marshal(r.remembered(state)); err != nil {
		return false, err
	}
	return len(p.Events) == batch, r.Store.AdvanceAlerts(ctx, p, queue)
}

// remembered returns the state of the alerts that there are.
func (r *Reporter) remembered(state map[string]*pending) map[string]*pending {
	kept := map[string]*pending{}
	for _, a := range r.rules {
		if s := state[a.Name]; s != nil {
			kept[a.Name] = s
		}
	}
	return kept
}

// judge returns the messages about an entry.
func (r *Reporter) judge(ctx context.Context, state map[string]*pending, e postern.Event) ([]Message, error) {
	var queue []Message
	in := &reading{ctx: ctx, event: e, store: r.Store}
	for _, a := range r.rules {
		if e.Kind == postern.EventAlertTest {
			if e.Object == a.Name {
				queue = append(queue, r.messages(ctx, a, e, 1)...)
			}
			continue
		}
		matched := in.matches(a.program)
		if in.err != nil {
			return nil, in.err
		}
		if !matched {
			continue
		}
		s := state[a.Name]
		if s == nil {
			s = &pending{}
			state[a.Name] = s
		}
		if a.reached(s, e) {
			queue = append(queue, r.due(ctx, a, s)...)
		}
	}
	return queue, nil
}

// reached counts an entry that matched, and reports whether there is something to report.
func (a rule) reached(s *pending, e postern.Event) bool {
	n := max(e.Count, 1)
	if a.Count > 0 {
		if e.Time.Sub(s.Since).Abs() > a.Within { // before it, too: the clock was ahead
			s.Since, s.Sum = e.Time, 0
		}
		s.Sum += n
		if s.Sum < a.Count {
			return false
		}
		n, s.Sum, s.Since = s.Sum, 0, time.Time{}
	}
	s.Held, s.Event = s.Held+n, &e
	return true
}

// held returns the messages about what was held back for an alert's Every.
func (r *Reporter) held(ctx context.Context, state map[string]*pending) (queue []Message) {
	for _, a := range r.rules {
		if s := state[a.Name]; s != nil && s.Held > 0 {
			queue = append(queue, r.due(ctx, a, s)...)
		}
	}
	return queue
}

// due returns the messages about what is held, if the last were long enough ago, or were
// sent while the clock was ahead.
func (r *Reporter) due(ctx context.Context, a rule, s *pending) []Message {
	now := r.Now()
	if since := now.Sub(s.Sent); since >= 0 && since < a.Every {
		return nil
	}
	messages := r.messages(ctx, a, *s.Event, s.Held)
	s.Sent, s.Held, s.Event = now, 0, nil
	return messages
}

// messages returns one message for each receiver.
func (r *Reporter) messages(ctx context.Context, a rule, e postern.Event, count int64) []Message {
	text := r.Sentence(ctx, e)
	list := make([]Message, len(a.To))
	for i, to := range a.To {
		list[i] = Message{
			ID: strings.ToLower(rand.Text()), Alert: a.Name, To: to, Event: e, Text: text, Count: count,
			Queued: r.Now().UTC(), Of: len(a.To),
		}
	}
	return list
}

// Deliver delivers the messages that are due, several at a time, and those that become due
// meanwhile. Those that were tried least come first, so that a receiver that does not answer
// does not hold up the others.
func (r *Reporter) Deliver(ctx context.Context) error {
	results := make(chan error, atOnce)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var failed error
	for running := 0; ; {
		var due []Message
		if failed == nil && running < atOnce {
			due, failed = r.Store.DueAlerts(ctx, r.Now(), atOnce-running, lease)
		}
		for _, m := range due {
			go func() { results <- r.deliver(ctx, m) }()
		}
		if running += len(due); running == 0 {
			return failed
		}
		select {
		case err := <-results:
			running--
			failed = errors.Join(failed, err)
		case <-tick.C:
		}
	}
}

// deliver delivers a message, or has it tried again.
func (r *Reporter) deliver(ctx context.Context, m Message) error {
	err := r.send(ctx, m)
	if ctx.Err() != nil {
		return nil // the lease ends, and it is tried again
	}
	test := m.Event.Kind == postern.EventAlertTest
	if err == nil && !test {
		return r.Store.DropAlert(ctx, m.ID)
	}
	sent := postern.Event{
		Time: r.Now().UTC(), Kind: postern.EventAlertSent, Outcome: postern.OK, Object: m.Alert,
		Details: map[string]string{"to": m.To.String(), "receivers": strconv.Itoa(m.Of)},
	}
	if err == nil {
		return r.Store.DropAlert(ctx, m.ID, sent)
	}
	sent.Outcome, sent.Reason = postern.Failed, err.Error()
	if test || r.Now().Sub(m.Queued) > givenUp {
		return r.Store.DropAlert(ctx, m.ID, sent)
	}
	wait := min(firstTry<<min(m.Tries, 10), LastTry)
	r.Log.WarnContext(ctx, "an alert is not delivered yet", slog.String(postern.LogID, m.ID),
		slog.String(postern.LogReason, m.To.String()), slog.Int(postern.LogCount, m.Tries+1),
		slog.Any(postern.LogError, err))
	return r.Store.RetryAlert(ctx, m.ID, r.Now().Add(wait))
}

// sendTimeout bounds one delivery.
const sendTimeout = 30 * time.Second

func (r *Reporter) send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	switch {
	case m.To.Webhook != nil:
		return post(ctx, m, r.Now())
	case len(m.To.Command) > 0:
		return runCommand(ctx, m)
	case r.Mail == nil:
		return postern.Errorf(postern.Unavailable, "no mail can be sent")
	}
	return r.Mail(ctx, m.ID, m.To.Mail, m.subject(), m.mail())
}
