package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// SenderConfig says how a sender reaches its server. The zero value of each
// duration works.
type SenderConfig struct {
	URL    string // of the server's [Path]
	Host   string // name of this host in events
	Client *http.Client
	// Wait is the first pause after a failure, 1 s if zero; it doubles up to
	// MaxWait, 1 min if zero.
	Wait, MaxWait time.Duration
	// Beat is after what time without events the server is told that there are none, 1 min
	// if zero.
	Beat time.Duration
}

// Validate reports what is wrong with the configuration.
func (c SenderConfig) Validate() error {
	if c.URL == "" || c.Host == "" || c.Wait < 0 || c.MaxWait < 0 || c.Beat < 0 {
		return postern.Errorf(postern.Invalid, "a sender needs a server, the name of its host, and no negative wait")
	}
	return nil
}

// Sender sends what is in a spool.
type Sender struct {
	c     SenderConfig
	spool *Spool
	log   *slog.Logger
	sent  int64 // acknowledged up to here
	limit int   // events of the next batch
}

// NewSender returns a sender of what the spool holds and will hold.
func NewSender(c SenderConfig, spool *Spool, log *slog.Logger) (*Sender, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Client == nil {
		c.Client = http.DefaultClient
	}
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	if c.MaxWait == 0 {
		c.MaxWait = time.Minute
	}
	if c.Beat == 0 {
		c.Beat = time.Minute
	}
	return &Sender{c: c, spool: spool, log: log, limit: maxBatchEvents}, nil
}

// Run makes spooled events durable and sends them until ctx ends. It retries after
// a failure, and logs only the first of several in a row.
func (s *Sender) Run(ctx context.Context) {
	news := make(chan struct{}, 1)
	var syncing sync.WaitGroup
	syncing.Go(func() { s.keepSynced(ctx, news) })
	defer syncing.Wait()
	wait, failing, idle := s.c.Wait, false, false
	for {
		more, err := s.Send(ctx)
		if err == nil && !more && idle {
			err = s.beat(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && more:
			continue
		case err == nil:
			if failing {
				s.log.InfoContext(ctx, "the server accepts events again")
			}
			wait, failing = s.c.Wait, false
			select {
			case <-ctx.Done():
				return
			case <-news:
				idle = false
			case <-time.After(s.c.Beat):
				idle = true
			}
			continue
		case !failing:
			failing = true
			s.log.WarnContext(ctx, "events cannot be sent and are kept on disk", slog.Any(postern.LogError, err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		wait = min(2*wait, s.c.MaxWait)
	}
}

// keepSynced makes appended events durable, also while a batch is being sent.
func (s *Sender) keepSynced(ctx context.Context, news chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.spool.wake:
		}
		if err := s.spool.Sync(); err != nil {
			s.log.ErrorContext(ctx, "the spool cannot be written to disk", slog.Any(postern.LogError, err))
		}
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

// Send sends one batch and reports whether there may be more. It is not safe for
// concurrent use. An event that the server finds wrong is given up, and counted
// by the server as one that is missing.
func (s *Sender) Send(ctx context.Context) (more bool, err error) {
	batch, err := s.spool.Batch(s.sent+1, s.limit)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	// A number that the server has received must not be used again after a crash.
	if err := s.spool.Sync(); err != nil {
		return false, err
	}
	last := batch[len(batch)-1].Seq
	seq, err := s.post(ctx, batch)
	switch {
	case err == nil:
		s.sent, s.limit = max(seq, last), maxBatchEvents
	case postern.CodeOf(err) == postern.Invalid && len(batch) > 1:
		s.limit = len(batch) / 2
		return true, nil
	case postern.CodeOf(err) == postern.Invalid:
		s.log.ErrorContext(ctx, "the server refuses an event", slog.Any(postern.LogError, err),
			slog.String(postern.LogKind, batch[0].Event.Kind))
		s.sent = last
	default:
		return false, err
	}
	return true, s.spool.Ack(s.sent)
}

// beat tells the server that there are no events. A server of an earlier version takes no
// batch without events.
func (s *Sender) beat(ctx context.Context) error {
	_, err := s.post(ctx, nil)
	if postern.CodeOf(err) == postern.Invalid {
		return nil
	}
	return err
}

// postTimeout bounds one batch.
const postTimeout = 30 * time.Second

func (s *Sender) post(ctx context.Context, batch []Numbered) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	if err := enc.Encode(header{Agent: s.spool.id, Host: s.c.Host, Now: time.Now().UTC()}); err != nil {
		return 0, err
	}
	for _, n := range batch {
		if err := enc.Encode(n); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.c.URL, &body)
	if err != nil {
		return 0, postern.Errorf(postern.Unavailable, "%w", err)
	}
	req.Header.Set("Content-Type", "application/jsonl")
	res, err := s.c.Client.Do(req)
	if err != nil {
		return 0, postern.Errorf(postern.Unavailable, "%w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var a answer
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	switch {
	case err == nil && res.StatusCode == http.StatusOK:
		return a.Seq, nil
	case err == nil && a.Error != "" && res.StatusCode == http.StatusBadRequest:
		return 0, postern.Errorf(postern.Invalid, "the server says: %s", a.Error)
	case err == nil && a.Error != "":
		return 0, postern.Errorf(postern.Unavailable, "the server says: %s", a.Error).WithHint("%s", a.Hint)
	}
	return 0, postern.Errorf(postern.Unavailable, "the server answers %s", res.Status)
}
