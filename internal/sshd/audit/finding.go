package audit

import (
	"cmp"
	"slices"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// Severity says how much a finding matters.
type Severity string

// The severities, most severe first.
const (
	Critical Severity = "critical" // an attacker with one factor can log in, or gets a channel
	High     Severity = "high"     // the second factor can be got round by who holds something more
	Medium   Severity = "medium"   // one mistake away from a hole
	Low      Severity = "low"      // out of order
)

var severities = []Severity{Critical, High, Medium, Low}

// Finding is one thing that is wrong, with the line that causes it, how to see
// it and how to fix it.
type Finding struct {
	ID       string        `json:"id"`
	Severity Severity      `json:"severity"`
	Title    string        `json:"title"`
	Where    hostconf.Line `json:"where"`
	Case     string        `json:"case,omitempty"` // the connection it was seen for, as sshd -T -C takes it
	Proof    string        `json:"proof"`          // a command that shows it
	Fix      string        `json:"fix"`
	Proved   string        `json:"proved,omitempty"` // what running the proof showed

	try   probe
	opens bool // a way in with fewer than two factors
}

// Report is what an audit found.
type Report struct {
	Findings []Finding `json:"findings"` // most severe first
	Cases    int       `json:"cases"`    // kinds of connection that sshd was asked about
}

// Open returns the findings that are ways in with fewer than two factors.
func (r *Report) Open() []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return !f.opens })
}

// add notes a finding once for each line that causes it: where it matters most.
func (r *Report) add(f Finding) {
	i := slices.IndexFunc(r.Findings, func(g Finding) bool { return f.ID == g.ID && f.Where == g.Where })
	switch {
	case i < 0:
		r.Findings = append(r.Findings, f)
	case f.rank() < r.Findings[i].rank():
		r.Findings[i] = f
	}
}

// rank is 0 for the most severe findings.
func (f Finding) rank() int { return slices.Index(severities, f.Severity) }

// Compare orders findings, most severe first.
func (f Finding) Compare(g Finding) int { return cmp.Compare(f.rank(), g.rank()) }

func (r *Report) sort() { slices.SortStableFunc(r.Findings, Finding.Compare) }
