package witness

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

// How often a log's witnesses are asked.
const (
	DefaultEvery = 10 * time.Second // between two checkpoints
	freshFor     = time.Hour        // after which a log that has not grown is cosigned again
	silentFor    = time.Hour        // after which a witness that does not answer is a problem
	askTimeout   = 10 * time.Second
	maxClock     = time.Hour // by which a witness's clock may be wrong
)

// Store keeps what witnesses said.
type Store interface {
	Witnesses(ctx context.Context) ([]timeline.Witnessed, error)
	KeepWitnessed(ctx context.Context, all []timeline.Witnessed, cosigned string) error
}

// Submitter has a log's checkpoints cosigned by the witnesses of a policy.
type Submitter struct {
	Log      Log
	Store    Store
	Verifier func() (note.Verifier, error) // of the log's checkpoints
	Policy   *timeline.Policy
	Every    time.Duration // between two checkpoints that are submitted
	HTTP     *http.Client  // nil: one that follows no redirection
	// Record is told of each witness what is wrong with it, "" if nothing is.
	Record func(ctx context.Context, witness, problem string)
	Logger *slog.Logger

	began time.Time
}

// Run submits checkpoints until ctx ends.
func (s *Submitter) Run(ctx context.Context) {
	s.began = time.Now()
	tick := time.NewTicker(cmp.Or(s.Every, DefaultEvery))
	defer tick.Stop()
	for {
		if err := s.Round(ctx); err != nil && ctx.Err() == nil {
			s.Logger.ErrorContext(ctx, "the timeline is not witnessed", slog.Any(postern.LogError, err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// newHTTP returns a client that follows no redirection and reads no more than a witness has to say.
func newHTTP() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxAnswer
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// Round submits the log's checkpoint to each witness that has not cosigned it lately.
func (s *Submitter) Round(ctx context.Context) error {
	if s.HTTP == nil {
		s.HTTP = newHTTP()
	}
	v, err := s.Verifier()
	if err != nil {
		return err
	}
	var state timeline.State
	if err := s.Log.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) (err error) {
		state, err = a.State(ctx)
		return err
	}); err != nil {
		return err
	}
	kept, err := s.Store.Witnesses(ctx)
	if err != nil {
		return err
	}
	all := make([]timeline.Witnessed, len(s.Policy.Witnesses))
	errs := make([]error, len(all))
	var asking sync.WaitGroup
	for i, w := range s.Policy.Witnesses {
		all[i] = last(kept, w)
		if all[i].Size == state.Size && time.Since(all[i].Time) < freshFor && all[i].Problem == "" {
			continue
		}
		asking.Go(func() { errs[i] = s.ask(ctx, v, w.URL, state.Checkpoint, &all[i]) })
	}
	asking.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for i := range all {
		s.record(ctx, &all[i], errs[i])
	}
	return s.keep(ctx, state, all, kept)
}

// last returns what a witness said last.
func last(kept []timeline.Witnessed, w timeline.PolicyKey) timeline.Witnessed {
	for _, k := range kept {
		if k.Key == w.Key {
			k.Name = w.Name
			return k
		}
	}
	return timeline.Witnessed{Name: w.Name, Key: w.Key}
}

// ask has a witness cosign a checkpoint.
func (s *Submitter) ask(ctx context.Context, v note.Verifier, url, signed string, w *timeline.Witnessed) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	key, err := timeline.NewWitness(w.Key)
	if err != nil {
		return err
	}
	cosigned, err := (&Client{url, key, s.HTTP}).Add(ctx, s.Log, v, w.Size, signed)
	if err != nil {
		return err
	}
	c, err := timeline.OpenCheckpoint(cosigned, v)
	if err != nil {
		return err
	}
	times, err := timeline.Cosignatures(cosigned, key)
	if err != nil {
		return err
	}
	at := times[key.Name()]
	if time.Since(at).Abs() > maxClock {
		return unanswered("the witness's clock says %s", at.Format(time.RFC3339))
	}
	w.Size, w.Time, w.Checkpoint = c.Size, at, cosigned
	return nil
}

// maxProblem bounds in bytes what is kept of an error, which may quote what a witness sent.
const maxProblem = 300

// printable returns the beginning of an error's text, without what a terminal takes for more than text.
func printable(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, err.Error())
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return text
}

// record records what is wrong with a witness. That it does not answer matters only after
// a while.
func (s *Submitter) record(ctx context.Context, w *timeline.Witnessed, err error) {
	since := s.began
	if w.Time.After(since) {
		since = w.Time
	}
	w.Problem = ""
	if err != nil {
		w.Problem = printable(err)
	}
	switch {
	case err == nil:
		s.Record(ctx, w.Name, "")
	case errors.Is(err, ErrFork): // without sizes, of which a witness may name another each time
		s.Record(ctx, w.Name, ErrFork.Error())
	case errors.Is(err, ErrUnknown):
		s.Record(ctx, w.Name, ErrUnknown.Error())
	case time.Since(since) > silentFor:
		s.Record(ctx, w.Name, "it has not cosigned since "+since.UTC().Format(time.RFC3339))
	}
}

// keep keeps what the witnesses said, if that is something new, and the checkpoint with
// the signatures of all that cosigned it, if they are enough.
func (s *Submitter) keep(ctx context.Context, now timeline.State, all, kept []timeline.Witnessed) error {
	if slices.EqualFunc(sorted(all), sorted(kept), same) {
		return nil
	}
	keys, err := s.Policy.Keys()
	if err != nil {
		return err
	}
	cosigned := now.Checkpoint
	for _, w := range all {
		_, lines, _ := strings.Cut(w.Checkpoint, "\n\n")
		if more, err := timeline.AddCosignatures(cosigned, lines, keys...); err == nil && w.Size == now.Size {
			cosigned = more
		}
	}
	if by, enough, err := s.Policy.Cosigned(cosigned); err != nil || !enough || len(by) == 0 {
		cosigned = ""
	}
	return s.Store.KeepWitnessed(ctx, all, cosigned)
}

func sorted(list []timeline.Witnessed) []timeline.Witnessed {
	return slices.SortedFunc(slices.Values(list), func(a, b timeline.Witnessed) int {
		return strings.Compare(a.Key, b.Key)
	})
}

func same(a, b timeline.Witnessed) bool {
	return a.Key == b.Key && a.Name == b.Name && a.Size == b.Size && a.Time.Equal(b.Time) && a.Problem == b.Problem
}
