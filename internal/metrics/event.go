package metrics

import (
	"slices"

	"github.com/postern-project/postern"
)

// other is the value of a label in place of one that is not known.
const other = "other"

// maxProfiles bounds the profiles of certificates with a label of their own. Their names
// are the configuration's.
const maxProfiles = 32

var (
	outcomes = []string{
		string(postern.OK), string(postern.Refused), string(postern.Failed), string(postern.Unknown),
	}
	logins = []string{"certificate", "ssh", "pam"}
)

// event counts an event of the timeline.
func (m *Metrics) event(e postern.Event) {
	n := float64(max(e.Count, 1))
	kind, outcome := other, other
	if _, ok := postern.EventKindOf(e.Kind); ok {
		kind = e.Kind
	}
	if slices.Contains(outcomes, string(e.Outcome)) {
		outcome = string(e.Outcome)
	}
	m.events.WithLabelValues(kind, outcome).Add(n)
	switch e.Kind {
	case postern.EventOTP:
		m.codes.WithLabelValues(outcome).Add(n)
	case postern.EventSignedIn, postern.EventAccessRefused:
		m.logins.WithLabelValues("certificate", outcome).Add(n)
	case postern.EventSSHAuth:
		m.logins.WithLabelValues("ssh", outcome).Add(n)
	case postern.EventPAMAuth:
		m.logins.WithLabelValues("pam", outcome).Add(n)
	case postern.EventACMEOrder:
		m.orders.WithLabelValues(outcome).Add(n)
	case postern.EventAgentLost:
		m.lost.Add(n)
	case postern.EventCertIssued, postern.EventCertRenewed:
		m.certificate(e, e.Details["profile"])
	case postern.EventSSHCertIssued:
		m.certificate(e, "ssh")
	}
}

func (m *Metrics) certificate(e postern.Event, profile string) {
	if e.Outcome != postern.OK {
		return
	}
	if !m.profiles[profile] {
		if profile == "" || len(m.profiles) == maxProfiles {
			profile = other
		} else {
			m.profiles[profile] = true
		}
	}
	m.certificates.WithLabelValues(profile).Inc()
}
