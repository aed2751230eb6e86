package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/audit"
)

// TestOneAuditIsReportedTwice holds that the host's own report says what the audit found
// that the timeline says, and what kept the audit from being made.
func TestOneAuditIsReportedTwice(t *testing.T) {
	spool, err := relay.OpenSpool(relay.SpoolConfig{Dir: t.TempDir(), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	var events []postern.Event
	report := &reporter{spool: spool, host: "hv1", print: func(e postern.Event) { events = append(events, e) }}
	audits, hole := 0, audit.Finding{ID: "hole", Severity: audit.High, Title: "root logs in without a code"}
	var fails error
	a := auditor{
		Config: Config{Host: "hv1", Log: slog.New(slog.DiscardHandler)},
		report: report, findings: newFindings(), last: filepath.Join(t.TempDir(), "last"),
		audit: func(context.Context) (*audit.Report, error) {
			audits++
			return &audit.Report{Findings: []audit.Finding{
				hole, hole, {ID: "note", Severity: audit.Low, Title: "a note"},
			}}, fails
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if list := a.findings.lines(ctx); len(list) != 0 {
		t.Errorf("before the first audit: %q", list)
	}
	a.once(t.Context())
	want := []string{string(audit.High) + ": " + hole.Title}
	if list := a.findings.lines(t.Context()); !slices.Equal(list, want) || audits != 1 || len(events) != 1 {
		t.Errorf("%q by %d audits, and the events %+v", list, audits, events)
	}
	fails = errors.New("no sshd_config")
	a.once(t.Context())
	if list := a.findings.lines(t.Context()); len(list) != 1 || list[0] != "the audit of sshd: no sshd_config" {
		t.Errorf("an audit that failed: %q", list)
	}
}
