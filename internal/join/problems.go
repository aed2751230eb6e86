package join

import (
	"context"
	"slices"
	"time"

	"github.com/postern-project/postern/internal/sshd/audit"
)

// auditEvery is how often a joined host looks for what weakens two-factor SSH.
const auditEvery = time.Hour

// problems are what a joined host finds wrong with itself.
type problems struct {
	looked time.Time
	list   []string
}

// find returns what is wrong, from the last audit that is not too old.
func (p *problems) find(ctx context.Context, root string) []string {
	if !p.looked.IsZero() && time.Since(p.looked) < auditEvery {
		return p.list
	}
	p.looked, p.list = time.Now(), nil
	report, err := audit.Auditor{Root: root}.Audit(ctx)
	if err != nil {
		p.list = []string{"the audit of sshd: " + err.Error()}
	}
	for _, f := range report.Findings {
		if line := string(f.Severity) + ": " + f.Title; f.Severity != audit.Low && !slices.Contains(p.list, line) {
			p.list = append(p.list, line)
		}
	}
	return p.list
}
