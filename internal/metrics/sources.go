package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources say what is read at each scrape. Each is set, and safe for concurrent use.
type Sources struct {
	Up        func() bool             // whether the database can be read and written
	Codes     func() bool             // whether one-time passwords are accepted
	Decisions func() map[string]int64 // of guards, by reason
	Unwritten func() int64            // events that the timeline could not take yet
	CAs       func() []CA             // that issue or are trusted
	// Stored fails if the database does not answer: then what it says is left out.
	Stored func(context.Context) (Stored, error)
	Free   func() (int64, bool) // bytes on the disk of the state directory
}

// CA is a certificate authority's name, which the server chose, and when it ends.
type CA struct {
	Name string
	End  time.Time
}

// Stored is what the database says.
type Stored struct {
	Entries    int64 // of the timeline
	Bytes      int64 // that the database takes
	Mail       int64 // messages that wait to be sent
	Alerts     int64 // messages of alerts that wait to be delivered
	Agents     int64 // that report from other hosts
	AgentsLate int64 // of which nothing was received for a while
	Witnesses  []Witness
}

// Witness is a witness of the timeline, by its name in the configuration.
type Witness struct {
	Name     string
	Cosigned time.Time // when it did so last; zero: never
	Entries  int64     // that it cosigned then
	OK       bool      // nothing is wrong since
}

// scrapeTimeout bounds what a scrape waits for the database.
const scrapeTimeout = 3 * time.Second

// scraped reads the sources at each scrape.
type scraped struct{ Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

var (
	descUp       = desc("database_up", "1 if the database can be read and written, else 0.")
	descAccepted = desc("codes_accepted",
		"0 while no one-time password is accepted, as the database was restored or its mark is missing, else 1.")
	descDecisions = desc("decisions_total", "Requests that guards have decided about, by reason.", "reason")
	descUnwritten = desc("timeline_unwritten_events",
		"Events that the timeline could not take yet; 0 while it can be written.")
	descCA      = desc("ca_end_timestamp_seconds", "When a certificate authority ends.", "ca")
	descEntries = desc("timeline_entries", "Entries of the timeline.")
	descBytes   = desc("database_bytes", "What the database takes on disk.")
	descFree    = desc("state_free_bytes", "Free on the disk of the state directory.")
	descMail    = desc("mail_queue", "Messages that wait to be sent.")
	descAlerts  = desc("alert_queue", "Messages of alerts that wait to be delivered.")
	descWitness = desc("witness_up", "1 while the witness cosigns the timeline, else 0.", "witness")
	descSeen    = desc("witness_entries", "Entries of the timeline that the witness cosigned last.", "witness")
	descSeenAt  = desc("witness_timestamp_seconds", "When the witness cosigned the timeline last.", "witness")
	descAgents  = desc("agents", "Agents that report from other hosts.")
	descLate    = desc("agents_late", "Agents of which nothing was received for five minutes.")
)

// number is 1 for what holds, else 0.
func number(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// Describe implements [prometheus.Collector].
func (s *scraped) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descUp, descAccepted,
		descDecisions, descUnwritten, descCA, descEntries, descBytes, descFree, descMail, descAlerts,
		descAgents, descLate, descWitness, descSeen, descSeenAt,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *scraped) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descUp, number(s.Up()))
	gauge(descAccepted, number(s.Codes()))
	for reason, n := range s.Decisions() {
		to <- prometheus.MustNewConstMetric(descDecisions, prometheus.CounterValue, float64(n), reason)
	}
	gauge(descUnwritten, float64(s.Unwritten()))
	for _, c := range s.CAs() {
		gauge(descCA, float64(c.End.Unix()), c.Name)
	}
	if free, ok := s.Free(); ok {
		gauge(descFree, float64(free))
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	stored, err := s.Stored(ctx)
	if err != nil {
		return
	}
	gauge(descEntries, float64(stored.Entries))
	gauge(descBytes, float64(stored.Bytes))
	gauge(descMail, float64(stored.Mail))
	gauge(descAlerts, float64(stored.Alerts))
	gauge(descAgents, float64(stored.Agents))
	gauge(descLate, float64(stored.AgentsLate))
	for _, w := range stored.Witnesses {
		gauge(descWitness, number(w.OK), w.Name)
		gauge(descSeen, float64(w.Entries), w.Name)
		if !w.Cosigned.IsZero() {
			gauge(descSeenAt, float64(w.Cosigned.Unix()), w.Name)
		}
	}
}
