package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/export"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// spans returns a sink that makes spans of this host's calls.
func (o *traceOptions) spans(send func([]*tracepb.ResourceSpans) error) (*export.Spans, error) {
	host, err := hostName(o.host)
	if err != nil {
		return nil, err
	}
	return export.NewSpans(export.SpansConfig{Host: host, Version: version(), Send: send}), nil
}

// send runs a trace whose calls go to a collector, instead of being shown.
func (o *traceOptions) send(ctx context.Context, a *app) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	o.warn(a.err)
	cfg.Queue = true
	client, err := otlpClient(ctx, o.collector)
	if err != nil {
		return err
	}
	sender := newSpanSender(client, a.err)
	sink, err := o.spans(sender.add)
	if err != nil {
		return err
	}
	s, err := capture.Start(cfg)
	if err != nil {
		return err
	}
	ready(a.err, s)
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { sender.run(sending) })
	err = s.Run(ctx, sink)
	stop()
	running.Wait()
	summary(a.err, s.Summary())
	fmt.Fprintln(a.err, sender.finish(context.WithoutCancel(ctx)))
	return errors.Join(err, s.Close())
}

// spanExport writes the spans of a recording to a file, or sends them, or both.
type spanExport struct {
	*export.Spans
	w      io.Writer        // nil for none
	client otlptrace.Client // nil for none
	ctx    context.Context
	line   []byte
	count  int
}

func (o *traceOptions) exportSpans(ctx context.Context, w io.Writer) (exportSink, error) {
	x := &spanExport{w: w, ctx: ctx}
	var err error
	if o.collector != "" {
		if x.client, err = otlpClient(ctx, o.collector); err != nil {
			return nil, err
		}
	}
	x.Spans, err = o.spans(x.write)
	return x, err
}

func (x *spanExport) write(spans []*tracepb.ResourceSpans) error {
	x.count += countSpans(spans)
	if x.client != nil {
		if err := x.client.UploadTraces(x.ctx, spans); err != nil {
			return postern.Errorf(postern.Unavailable, "the collector does not take spans: %w", err)
		}
	}
	if x.w == nil {
		return nil
	}
	var err error
	if x.line, err = export.AppendSpans(x.line[:0], spans); err != nil {
		return err
	}
	_, err = x.w.Write(x.line)
	return err
}

func (x *spanExport) finish() (string, error) {
	return count(x.count, "span", "spans") + map[bool]string{true: " sent", false: " written"}[x.client != nil], x.Idle()
}

// otlpRetries is how long a collector is asked again that says that it has too much
// to do.
const otlpRetries = 30 * time.Second

// otlpClient returns a client of the collector at an address. Without a path that
// is OTLP's own. The environment may say more: OTEL_EXPORTER_OTLP_HEADERS, and
// OTEL_EXPORTER_OTLP_CERTIFICATE and its likes.
func otlpClient(ctx context.Context, address string) (otlptrace.Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, postern.Errorf(postern.Invalid, "%q is not an address such as https://collector.example.com:4318", address)
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return nil, postern.Errorf(postern.Invalid, "%s would tell the network what happens here", address).
			WithHint("use https, or a collector on this host that sends on")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	c := otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithCompression(otlptracehttp.GzipCompression), otlptracehttp.WithTimeout(10*time.Second),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 10 * time.Second, MaxElapsedTime: otlpRetries}),
	)
	return c, c.Start(ctx)
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// maxSpansWaiting bounds the memory that spans take while the collector is away:
// some 3 KiB each.
const maxSpansWaiting = 1 << 14

// spanSender sends spans to a collector while a trace goes on, which never waits
// for it: what does not fit is dropped, and counted.
type spanSender struct {
	client  otlptrace.Client
	warn    io.Writer
	mu      sync.Mutex
	waiting []*tracepb.ResourceSpans
	count   int // spans in waiting
	sent    int
	dropped int
	more    chan struct{} // something waits
}

func newSpanSender(c otlptrace.Client, warn io.Writer) *spanSender {
	return &spanSender{client: c, warn: warn, more: make(chan struct{}, 1)}
}

// add takes spans. It does not wait.
func (s *spanSender) add(spans []*tracepb.ResourceSpans) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := countSpans(spans); s.count+n <= maxSpansWaiting {
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

func countSpans(spans []*tracepb.ResourceSpans) int {
	n := 0
	for _, rs := range spans {
		for _, ss := range rs.ScopeSpans {
			n += len(ss.Spans)
		}
	}
	return n
}

// run sends until ctx ends: a second after something came, or when it is enough
// for a request.
func (s *spanSender) run(ctx context.Context) {
	var later <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.more:
			if s.held() < maxRequest {
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

func (s *spanSender) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// maxRequest is how many spans go in one request, if they are gathered that finely.
const maxRequest = 512

// take returns the spans that have waited longest.
func (s *spanSender) take() (spans []*tracepb.ResourceSpans, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 && n < maxRequest {
		spans = append(spans, s.waiting[0])
		n += countSpans(s.waiting[:1])
		s.waiting = s.waiting[1:]
	}
	return spans, n
}

// done says what became of n spans that were taken: with an error they wait on if
// there was no time for more.
func (s *spanSender) done(spans []*tracepb.ResourceSpans, n int, err error, ended bool) {
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
func (s *spanSender) send(ctx context.Context) {
	for {
		spans, n := s.take()
		if n == 0 {
			return
		}
		err := s.client.UploadTraces(ctx, spans)
		for wait := time.Second; unreachable(err) && ctx.Err() == nil; wait = min(2*wait, 15*time.Second) {
			if wait == time.Second {
				fmt.Fprintf(s.warn, "warning: spans wait for the collector: %v\n", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
				err = s.client.UploadTraces(ctx, spans)
			}
		}
		ended := ctx.Err() != nil
		s.done(spans, n, err, ended)
		if ended {
			return
		}
		if err != nil {
			fmt.Fprintf(s.warn, "warning: %s dropped: %v\n", count(n, "span", "spans"), err)
		}
	}
}

// unreachable reports whether nobody answered.
func unreachable(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) || errors.As(err, &dns)
}

// endWait is how long the end waits for the collector.
const endWait = 5 * time.Second

// finish sends what is left, for a while, and says how it went.
func (s *spanSender) finish(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	s.send(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	text := count(s.sent, "span", "spans") + " sent"
	if lost := s.dropped + s.count; lost > 0 {
		text += fmt.Sprintf(", %d dropped", lost)
	}
	return text
}
