// Package metrics counts what a server does, and serves the numbers to Prometheus
// (OpenMetrics 1.0). No label has a value that a client chooses, or the name of a person.
package metrics

import (
	"net/http"
	"time"

	"github.com/postern-project/postern"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are a server's numbers. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	events       *prometheus.CounterVec
	codes        *prometheus.CounterVec
	logins       *prometheus.CounterVec
	certificates *prometheus.CounterVec
	orders       *prometheus.CounterVec
	lost         prometheus.Counter

	waited  prometheus.Histogram
	batches prometheus.Histogram
	failed  prometheus.Counter

	profiles map[string]bool // that have a label of their own
}

// New returns the numbers of a server that has just started. s is read at each scrape.
func New(version string, s Sources) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		events: counters("timeline_events_total",
			"Events that this server wrote to the timeline, with those that one entry counts.", "kind", "outcome"),
		codes: counters("codes_total", "One-time codes that were checked.", "outcome"),
		logins: counters("logins_total",
			"Sign-ins: by a certificate at a guarded location, to sshd, and to other programs that ask PAM.",
			"by", "outcome"),
		certificates: counters("certificates_issued_total", "Certificates issued and renewed.", "profile"),
		orders:       counters("acme_orders_total", "ACME orders that ended.", "outcome"),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "agent_lost_events_total",
			Help: "What happened on other hosts and was lost there, as their agents report.",
		}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "write_seconds", Help: "How long writes to the database waited until durable.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "write_batch_size", Help: "How many writes shared a transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "write_failures_total", Help: "Writes that the database did not take.",
		}),
		profiles: map[string]bool{},
	}
	for _, outcome := range outcomes {
		m.codes.WithLabelValues(outcome)
		m.orders.WithLabelValues(outcome)
		for _, by := range logins {
			m.logins.WithLabelValues(by, outcome)
		}
	}
	m.registry.MustRegister(m.events, m.codes, m.logins, m.certificates, m.orders, m.lost, m.waited, m.batches,
		m.failed, build(version), &scraped{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

const namespace = "postern"

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func build(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "1, with the version of the program.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
}

// Handler serves the numbers.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
		Timeout: 10 * time.Second,
	})
}

// Wrote counts writes to the database that were done together, each with how long it
// waited, and the events that they appended to the timeline.
func (m *Metrics) Wrote(waited []time.Duration, events []postern.Event) {
	m.batches.Observe(float64(len(waited)))
	for _, w := range waited {
		m.waited.Observe(w.Seconds())
	}
	for _, e := range events {
		m.event(e)
	}
}

// NotWritten counts writes that the database did not take.
func (m *Metrics) NotWritten(n int) { m.failed.Add(float64(n)) }
