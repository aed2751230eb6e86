package console

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Session is a session that is open, by the timeline.
type Session struct {
	Since   time.Time         `json:"since"`
	Host    string            `json:"host"`
	Person  string            `json:"person,omitempty"` // empty if it is not known
	Known   timeline.Strength `json:"known,omitempty"`  // how well; empty for a session on the server's own host
	Account string            `json:"account"`
	Service string            `json:"service"`           // as PAM calls it
	Address string            `json:"address,omitempty"` // from where
	With    []string          `json:"with,omitempty"`    // the credentials that were shown, KIND=ID
	Late    bool              `json:"late,omitempty"`    // its host has not reported lately: it may have ended
	Entry   int64             `json:"entry"`             // index of the timeline's entry
}

// maxSessionEntries bounds how many of the newest entries about sessions are read, of SSH
// and of other services each. What opened before them is not found.
const maxSessionEntries = 10000

// OpenSessions returns the sessions that are open, the oldest first. A session is over when
// its host says so, or has started again since. It reads a bounded number of entries, by
// the timeline's index. Entries that the server wrote are of the host self.
func OpenSessions(ctx context.Context, log timeline.Source, self string, late map[string]bool) ([]Session, error) {
	var entries []postern.Event
	for _, kind := range []string{"ssh.session", "pam.session"} {
		found, err := log.Events(ctx, timeline.Filter{
			Kind: kind, Outcome: postern.OK, Limit: maxSessionEntries, Last: true,
		})
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
	}
	list := []Session{}
	for _, e := range opened(entries) {
		joined, err := timeline.Join(ctx, log, e)
		if err != nil {
			return nil, err
		}
		s := sessionOf(e, joined)
		s.Late = late[e.Host]
		if s.Host == "" {
			s.Host = self
		}
		list = append(list, s)
	}
	return list, nil
}

// opened returns the entries of sessions that were opened and not closed, by index.
func opened(entries []postern.Event) (open []postern.Event) {
	slices.SortFunc(entries, func(a, b postern.Event) int { return int(a.Index - b.Index) })
	at, boot := map[postern.Link]postern.Event{}, map[string]string{}
	for _, e := range entries {
		of, now := processOf(e)
		if now == "" {
			continue // of a process that had ended already
		}
		boot[e.Host] = now
		if e.Kind == postern.EventSSHOpened || e.Kind == postern.EventPAMOpened {
			at[of] = e
		} else {
			delete(at, of)
		}
	}
	for _, e := range at {
		if _, of := processOf(e); of == boot[e.Host] {
			open = append(open, e)
		}
	}
	slices.SortFunc(open, func(a, b postern.Event) int { return int(a.Index - b.Index) })
	return open
}

// processOf returns the process that opened or closes a session, and the boot of the host in
// which it ran: HOST/BOOT/PID/START.
func processOf(e postern.Event) (of postern.Link, boot string) {
	for _, l := range e.Links {
		if parts := strings.Split(l.ID, "/"); l.Kind == postern.LinkProcess && len(parts) == 4 {
			return l, parts[1]
		}
	}
	return of, ""
}

// sessionOf says what is known of a session.
func sessionOf(e postern.Event, joined []postern.Event) Session {
	s := Session{
		Since: e.Time, Host: e.Host, Person: e.Person, Known: timeline.StrengthOf(e, joined, e.Person),
		Account: e.Object, Service: e.Details["service"], Address: e.Address, Entry: e.Index,
	}
	for _, j := range joined {
		if e.Person == "" || j.Outcome != postern.OK || j.Person != e.Person {
			continue
		}
		if s.Address == "" {
			s.Address = j.Address
		}
		for _, l := range j.Links {
			with := l.Kind + "=" + l.ID
			if credential(l) && !slices.Contains(s.With, with) {
				s.With = append(s.With, with)
			}
		}
	}
	return s
}

// credential reports whether a link is to what proves a person.
func credential(l postern.Link) bool {
	return slices.Contains([]postern.CredentialKind{
		postern.YubiKey, postern.TOTP, postern.HOTP, postern.BackupCode, postern.SSHCertificate, postern.SSHKey,
	}, postern.CredentialKind(l.Kind))
}
