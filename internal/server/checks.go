package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/timeline"
)

// How often a server looks at what alerts are about, and where that begins to matter.
const (
	checkEvery      = time.Minute
	checkHourly     = time.Hour
	checkDaily      = 24 * time.Hour
	caEndsSoon      = 30 * 24 * time.Hour
	rootEndsSoon    = 365 * 24 * time.Hour // its successor is installed wherever it is trusted
	diskFilling     = 1 << 30              // bytes
	firstDailyCheck = 10 * time.Minute
	wholeEvery      = 7 * 24 * time.Hour // at which the whole timeline is verified, and not its newest part
)

// checks records on the timeline what begins to be wrong with the server, and what is in
// order again.
type checks struct {
	*server
	recorded map[[2]string]string // what was wrong, by kind and object
}

// keepChecking checks until ctx ends.
func (s *server) keepChecking(ctx context.Context) {
	c := checks{s, map[[2]string]string{}}
	var hourly time.Time
	daily := time.Now().Add(firstDailyCheck - checkDaily) // a server that starts has other things to do
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		c.checkDisk(ctx)
		c.checkCodes(ctx)
		c.checkAgents(ctx, now)
		c.checkHosts(ctx)
		if now.Sub(hourly) >= checkHourly {
			hourly = now
			c.checkCAs(ctx, now)
		}
		if now.Sub(daily) >= checkDaily {
			daily = now
			c.checkTimeline(ctx, now)
			c.checkSSH(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// record records the result of a check if it is another than last time. wrong is what is
// wrong, or "".
func (s checks) record(ctx context.Context, kind, object, wrong string) {
	key := [2]string{kind, object}
	if was, ok := s.recorded[key]; ok && was == wrong {
		return
	}
	err := s.state.Store.Timeline().AppendChange(ctx, checked(kind, object, wrong))
	switch {
	case err == nil:
		s.recorded[key] = wrong
	case ctx.Err() == nil:
		s.log.ErrorContext(ctx, "the result of a check is not recorded", slog.String(postern.LogKind, kind),
			slog.Any(postern.LogError, err))
	}
}

// checked is the event of a check.
func checked(kind, object, wrong string) postern.Event {
	e := postern.Event{Kind: kind, Object: object, Outcome: postern.OK, Reason: wrong}
	if wrong != "" {
		e.Outcome = postern.Failed
	}
	return e
}

func (s checks) checkDisk(ctx context.Context) {
	free, ok := system.Free(s.state.Dir)
	switch {
	case !ok:
	case free < diskFilling: // its reason stays the same, so that it is recorded once
		s.record(ctx, postern.EventCheckDisk, hostName(), "less than 1 GiB is free")
	case free > 2*diskFilling: // between them it stays what it was
		s.record(ctx, postern.EventCheckDisk, hostName(), "")
	}
}

func (s checks) checkCodes(ctx context.Context) {
	wrong := ""
	if !s.codesAccepted() {
		wrong = "the database was restored, or what was seen of it is not known"
	}
	s.record(ctx, postern.EventCheckCodes, hostName(), wrong)
}

func (s checks) checkAgents(ctx context.Context, now time.Time) {
	agents, err := s.state.Store.Relay().Agents(ctx)
	if err != nil {
		return // the outage of the database is known
	}
	for _, a := range agents {
		wrong := ""
		if now.Sub(a.Heard) > lateAfter {
			wrong = "nothing was received since " + a.Heard.UTC().Format(time.RFC3339)
		}
		s.record(ctx, postern.EventCheckAgent, a.Source, wrong)
	}
}

// checkCAs reports the CAs that end soon and that no other has followed. What ends with its
// root is not reported beside it. SSH CAs do not end.
func (s checks) checkCAs(ctx context.Context, now time.Time) {
	for _, i := range s.authority.Issuers() {
		if i.Certificate != nil && i.Revoked.IsZero() {
			s.record(ctx, postern.EventCheckCA, i.ID, s.ends(i, now))
		}
	}
}

// ends says that a CA ends soon, "" if it does not or another one issues in its place.
func (s checks) ends(i ca.Issuer, now time.Time) string {
	c := s.authority.Chain(i.Role)[0]
	soon := caEndsSoon
	if i.Role == ca.Root {
		soon = rootEndsSoon
	}
	switch {
	case !bytes.Equal(c.Raw, i.Certificate), c.NotAfter.Sub(now) >= soon,
		i.Role != ca.Root && s.authority.EndsWithRoot(i.Role):
		return ""
	case !now.Before(c.NotAfter):
		return "it ended on " + c.NotAfter.UTC().Format(time.DateOnly)
	}
	return "it ends on " + c.NotAfter.UTC().Format(time.DateOnly)
}

func (s checks) checkTimeline(ctx context.Context, now time.Time) {
	verify := s.state.VerifyRecent
	if now.Sub(s.state.Verified()) >= wholeEvery {
		verify = func(ctx context.Context) (timeline.Report, error) { return s.state.VerifyLog(ctx) }
	}
	report, err := verify(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		s.log.ErrorContext(ctx, "the timeline cannot be verified", slog.Any(postern.LogError, err))
	case err == nil && len(report.Problems) > 0:
		s.record(ctx, postern.EventCheckTimeline, "", problemsOf(report))
	case err == nil:
		s.record(ctx, postern.EventCheckTimeline, "", "")
	}
}

// problemsOf names the first problem of a timeline, and how many there are.
func problemsOf(r timeline.Report) string {
	first := r.Problems[0].String()
	if n := len(r.Problems); n > 1 {
		return fmt.Sprintf("%s; %d problems in all", first, n)
	}
	return first
}

// checkSSH audits two-factor SSH on this host, which only root may.
func (s checks) checkSSH(ctx context.Context) {
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil || os.Geteuid() != 0 {
		return
	}
	report, err := s.auditor().Audit(ctx)
	if err != nil {
		return
	}
	if err := RecordAudit(ctx, s.state, report); err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "the audit of SSH is not recorded", slog.Any(postern.LogError, err))
	}
}

// auditor knows what this server's state says of codes and SSH certificates.
func (s *server) auditor() audit.Auditor {
	return audit.Auditor{
		TimeCodes: s.state.Store.OTP().TimeCodes,
		UserCA: func(ctx context.Context) (*audit.UserCA, error) {
			return SSHUserCA(ctx, s.state, s.authority)
		},
	}
}

// RecordAudit records on the timeline what an audit of this host found, if that is another
// result than last time.
func RecordAudit(ctx context.Context, st *state.State, report *audit.Report) error {
	return st.Store.Timeline().AppendChange(ctx, checked(postern.EventCheckSSH, hostName(), report.Summary()))
}
