package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/terminal"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Collector takes spans. UploadTraces returns when they are taken, or with the error
// of the network or of the collector.
type Collector interface {
	UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error
}

// maxSpansWaiting bounds the memory that spans take while the collector is unavailable:
// some 3 KiB each.
const maxSpansWaiting = 1 << 14

// Sender sends spans to a collector while a trace goes on, which never waits
// for it: what does not fit is dropped, and counted.
type Sender struct {
	collector Collector
	warn      func(string)
	mu        sync.Mutex
	waiting   []*tracepb.ResourceSpans
	count     int // spans in waiting
	sent      int
	dropped   int
	more      chan struct{} // something waits
}

// NewSender returns a sender whose warnings are given to warn.
func NewSender(c Collector, warn func(string)) *Sender {
	return &Sender{collector: c, warn: warn, more: make(chan struct{}, 1)}
}

// Add takes spans. It does not wait. It is safe for concurrent use.
func (s *Sender) Add(spans []*tracepb.ResourceSpans) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := CountSpans(spans); s.count+n <= maxSpansWaiting {
		s.waiting, s.count = append(s.waiting, spans...), s.count+n
	} else {
		s.dropped += n
	}
	select {
	case s.more <- struct{}{}:
	default:
	}
	return nil
}

// CountSpans returns how many spans there are.
func CountSpans(spans []*tracepb.ResourceSpans) int {
	n := 0
	for _, rs := range spans {
		for _, ss := range rs.ScopeSpans {
			n += len(ss.Spans)
		}
	}
	return n
}

// Run sends until ctx ends: a second after something came, or when it is enough
// for a request.
func (s *Sender) Run(ctx context.Context) {
	var later <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.more:
			if s.buffered() < maxRequest {
				if later == nil {
					later = time.After(time.Second)
				}
				continue
			}
		case <-later:
		}
		later = nil
		s.send(ctx)
	}
}

func (s *Sender) buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// maxRequest is how many spans go in one request, if they are gathered that finely.
const maxRequest = 512

// take returns the spans that have waited longest.
func (s *Sender) take() (spans []*tracepb.ResourceSpans, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 && n < maxRequest {
		spans = append(spans, s.waiting[0])
		n += CountSpans(s.waiting[:1])
		s.waiting = s.waiting[1:]
	}
	return spans, n
}

// done says what became of n spans that were taken: with an error they wait on if
// there was no time for more.
func (s *Sender) done(spans []*tracepb.ResourceSpans, n int, err error, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.sent += n
	case ended:
		s.waiting = append(spans, s.waiting...)
		return
	default:
		s.dropped += n
	}
	s.count -= n
}

// send sends what waits until nothing does or ctx ends. While the collector cannot
// be reached it tries again; what the collector refuses is dropped.
func (s *Sender) send(ctx context.Context) {
	for {
		spans, n := s.take()
		if n == 0 {
			return
		}
		err := s.collector.UploadTraces(ctx, spans)
		for wait := time.Second; unreachable(err) && ctx.Err() == nil; wait = min(2*wait, 15*time.Second) {
			if wait == time.Second {
				s.warn(fmt.Sprintf("spans wait for the collector: %v", err))
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
				err = s.collector.UploadTraces(ctx, spans)
			}
		}
		ended := ctx.Err() != nil
		s.done(spans, n, err, ended)
		if ended {
			return
		}
		if err != nil {
			s.warn(fmt.Sprintf("%s dropped: %v", terminal.Counted(n, "span"), err))
		}
	}
}

// unreachable reports whether no server answered.
func unreachable(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) || errors.As(err, &dns)
}

// endWait is how long the end waits for the collector.
const endWait = 5 * time.Second

// Finish sends what is left, for a while, and returns how many spans have been sent
// and how many have not.
func (s *Sender) Finish(ctx context.Context) (sent, dropped int) {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	s.send(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.dropped + s.count
}
