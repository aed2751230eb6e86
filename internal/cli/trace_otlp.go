package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
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
	sender := export.NewSender(client, func(text string) { fmt.Fprintln(a.err, "warning:", text) })
	sink, err := o.spans(sender.Add)
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
	running.Go(func() { sender.Run(sending) })
	err = s.Run(ctx, sink)
	stop()
	running.Wait()
	summary(a.err, s.Summary())
	fmt.Fprintln(a.err, sentSpans(sender.Finish(context.WithoutCancel(ctx))))
	return errors.Join(err, s.Close())
}

func sentSpans(sent, dropped int) string {
	text := terminal.Counted(sent, "span") + " sent"
	if dropped > 0 {
		text += fmt.Sprintf(", %d dropped", dropped)
	}
	return text
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
	x.count += export.CountSpans(spans)
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
	return terminal.Counted(x.count, "span") + map[bool]string{true: " sent", false: " written"}[x.client != nil], x.Idle()
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
