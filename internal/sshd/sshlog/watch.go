// Package sshlog follows sshd's log, in the journal or a file, and records who
// logged in by which method, joined to the process that serves the login.
package sshlog

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/process"
)

// Line is one line of sshd's log.
type Line struct {
	PID     int // of the process that wrote it
	Time    time.Time
	Message string
	// Unverified says that any user may have written the line and its PID, with
	// logger(1).
	Unverified bool
}

// Patterns of sshd's messages (auth.c and session.c of OpenSSH, PAM's modules).
var (
	authLine = regexp.MustCompile(
		`^(Accepted|Failed|Partial) (\S+) for (invalid user )?(.*) from (\S+) port (\d+)(?: ssh2)?(?:: (.*))?$`)
	keyLine  = regexp.MustCompile(`^(\S+) (SHA256:[A-Za-z0-9+/]{43})$`)
	certLine = regexp.MustCompile(
		`^(\S+-CERT) (SHA256:[A-Za-z0-9+/]{43}) ID (.*) \(serial (\d+)\) CA (\S+) (SHA256:[A-Za-z0-9+/]{43})$`)
	openLine = regexp.MustCompile(`^pam_unix\(sshd:session\): session (opened|closed) for user ([^ (]+)`)
)

// logLineMax bounds a line that is looked at, bytes.
const logLineMax = 8 << 10

// Parse returns the event that a line of sshd's log reports: an attempt to log in by one
// method, or a session that opens or closes. It returns false for other lines.
func Parse(message string) (postern.Event, bool) {
	if len(message) > logLineMax {
		return postern.Event{}, false
	}
	message = strings.TrimSuffix(message, " [preauth]") // written by the part of sshd that has no privileges
	if m := openLine.FindStringSubmatch(message); m != nil {
		kind := map[string]string{"opened": postern.EventSSHOpened, "closed": postern.EventSSHClosed}[m[1]]
		return postern.Event{
			Kind: kind, Outcome: postern.OK, Object: sshd.Printable(m[2]),
			Details: map[string]string{"source": "log"},
		}, true
	}
	m := authLine.FindStringSubmatch(message)
	if m == nil {
		return postern.Event{}, false
	}
	ev := postern.Event{
		Kind: postern.EventSSHAuth, Outcome: postern.OK, Address: m[5], Object: sshd.Printable(m[4]),
		Details: map[string]string{"source": "log", "method": sshd.Printable(m[2]), "port": m[6]},
	}
	switch m[1] {
	case "Failed":
		ev.Outcome, ev.Reason = postern.Refused, "sshd refused the method"
		if m[3] != "" {
			ev.Reason = "no such account"
		}
	case "Partial":
		ev.Details["step"] = "partial" // sshd wants another method, too
	}
	if c := certLine.FindStringSubmatch(m[7]); c != nil {
		ev.Links = append(ev.Links, postern.Link{Kind: string(postern.SSHCertificate), ID: c[4]},
			postern.Link{Kind: string(postern.SSHKey), ID: c[2]})
		ev.Details["key_type"], ev.Details["key_id"], ev.Details["ca"] = sshd.Printable(c[1]), sshd.Printable(c[3]),
			c[6]
	} else if k := keyLine.FindStringSubmatch(m[7]); k != nil {
		ev.Links = append(ev.Links, postern.Link{Kind: string(postern.SSHKey), ID: k[2]})
		ev.Details["key_type"] = sshd.Printable(k[1])
	}
	return ev, true
}

// Watcher records on the timeline the logins in sshd's log, joined to the process and the
// audit session from which what is run later descends.
type Watcher struct {
	Record sshd.Recorder
	// Person returns the person of a local account, "" if there is none.
	Person func(ctx context.Context, account string) string
	Log    *slog.Logger
	Host   string // names this host in links; empty means its hostname
	// Sessions makes it record sessions, too. It is false where pam_postern does that.
	Sessions bool
}

// Watch writes events for the lines until the channel is closed or ctx ends. The event of
// an unverified line is joined to its process only if that is root's sshd serving the
// line's account. If it is another process, the line is dropped.
func (w Watcher) Watch(ctx context.Context, lines <-chan Line) {
	m := process.This(w.Host)
	refused := sshd.Refusals(w.Record, w.Log)
	defer func() {
		if err := refused.Close(); err != nil {
			w.Log.Error("refused logins are not on the timeline", slog.Any(postern.LogError, err))
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case line, ok := <-lines:
			if !ok {
				return
			}
			ev, ok := Parse(line.Message)
			if !ok || ev.Kind != postern.EventSSHAuth && !w.Sessions {
				continue
			}
			ev.Time = line.Time.UTC()
			if line.Unverified {
				ev.Details["source"] = "file, unverified"
			}
			switch serves := process.Serving(line.PID, ev.Object); {
			case !line.Unverified || serves == process.Yes:
				ev.Links = append(ev.Links, m.Links(process.Login(line.PID))...)
			case serves == process.No:
				w.Log.WarnContext(ctx, "a line of sshd's log names a process that is not root's sshd: it is dropped",
					slog.Int(postern.LogPID, line.PID))
				continue
			}
			ev.Person = w.Person(ctx, ev.Object)
			if ev.Outcome != postern.OK {
				refused.Add(ev)
				continue
			}
			if err := w.Record.Append(ctx, ev); err != nil && ctx.Err() == nil {
				w.Log.ErrorContext(ctx, "an SSH login is not on the timeline", slog.Any(postern.LogError, err))
			}
		}
	}
}
