package export

import (
	"context"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the numbers of an export, for Prometheus. They are safe for concurrent use.
type metrics struct {
	next     atomic.Int64 // index of the entry that is sent next
	oldest   atomic.Int64 // when the oldest entry that is read and not acknowledged was written, in µs; 0 for none
	entries  prometheus.Counter
	failures prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "export", Name: name, Help: help,
		})
	}
	return &metrics{
		entries:  counter("entries_total", "Entries that the receiver acknowledged."),
		failures: counter("failures_total", "Attempts that failed, of the receiver or of the database."),
	}
}

// show takes over how far the export is, and what was read and waits.
func (m *metrics) show(c *cursor, page []record) {
	m.next.Store(c.Next)
	m.oldest.Store(0)
	if len(page) > 0 {
		m.oldest.Store(page[0].event.Time.UnixMicro())
	}
}

// waiting returns for how long the oldest entry that was read waits, in seconds.
func (m *metrics) waiting() float64 {
	if oldest := m.oldest.Load(); oldest != 0 {
		return max(time.Since(time.UnixMicro(oldest)).Seconds(), 0)
	}
	return 0
}

// behind returns how many entries the receiver does not have; NaN if that is not known.
func (m *metrics) behind(src Source) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	size, err := src.LogSize(ctx)
	if err != nil {
		return math.NaN()
	}
	return float64(max(size-m.next.Load(), 0))
}

// serve serves the numbers at an address, unless that is "", until end is called.
func (m *metrics) serve(address string, src Source) (end func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "serve the metrics: %w", err).
			WithHint("name a free address of this host, as 127.0.0.1:9469")
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "postern", Subsystem: "export", Name: name, Help: help,
		}, read)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.entries, m.failures,
		gauge("lag_entries", "Entries that the receiver does not have yet.", func() float64 { return m.behind(src) }),
		gauge("lag_seconds", "How long the oldest entry waits that is being sent.", m.waiting))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	go func() { _ = server.Serve(l) }()
	return func() { _ = server.Close() }, nil
}
