package console

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
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

// maxSessionEntries bounds how many of the newest entries about sessions are read at first, of
// SSH and of other services each, and how many sessions are remembered. What opened before
// them is not found.
const maxSessionEntries = 10000

// Sessions are the open sessions of a timeline. It remembers them, so that only new entries
// are read again. It may be used from several goroutines; the zero value but for Log is
// ready.
type Sessions struct {
	Log Log

	mu   sync.Mutex
	next int64                          // index of the first entry that was not read
	at   map[postern.Link]postern.Event // what opened them, by process
	boot map[string]string              // of each host, the newest
}

// Open returns the sessions that are open, the oldest first. A session is over when its host
// says so, or has started again since. Entries that the server wrote are of the host self.
func (s *Sessions) Open(ctx context.Context, self string, late map[string]bool) ([]Session, error) {
	opened, err := s.opened(ctx)
	if err != nil {
		return nil, err
	}
	list := []Session{}
	for _, e := range opened {
		joined, err := timeline.Join(ctx, s.Log, e)
		if err != nil {
			return nil, err
		}
		session := sessionOf(e, joined)
		session.Late = late[e.Host]
		if session.Host == "" {
			session.Host = self
		}
		list = append(list, session)
	}
	return list, nil
}

// opened reads new entries, and returns those that opened the sessions that are open.
func (s *Sessions) opened(ctx context.Context) (open []postern.Event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, err := s.Log.LogSize(ctx)
	if err != nil {
		return nil, err
	}
	if size < s.next || s.at == nil {
		s.next, s.at, s.boot = 0, map[postern.Link]postern.Event{}, map[string]string{}
	}
	var entries []postern.Event
	for _, kind := range []string{"ssh.session", "pam.session"} {
		found, err := s.Log.Events(ctx, timeline.Filter{
			Kind: kind, Outcome: postern.OK, From: s.next, Before: size, Limit: maxSessionEntries, Last: true,
		})
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
	}
	s.add(entries)
	s.next = size
	for of, e := range s.at {
		if _, boot := processOf(e); boot == s.boot[e.Host] {
			open = append(open, e)
		} else {
			delete(s.at, of)
		}
	}
	slices.SortFunc(open, byIndex)
	for _, e := range open[:max(0, len(open)-maxSessionEntries)] {
		of, _ := processOf(e)
		delete(s.at, of)
	}
	return open[max(0, len(open)-maxSessionEntries):], nil
}

// add notes which sessions were opened and closed.
func (s *Sessions) add(entries []postern.Event) {
	slices.SortFunc(entries, byIndex)
	for _, e := range entries {
		of, boot := processOf(e)
		if boot == "" {
			continue // of a process that had ended already
		}
		s.boot[e.Host] = boot
		if e.Kind == postern.EventSSHOpened || e.Kind == postern.EventPAMOpened {
			s.at[of] = e
		} else {
			delete(s.at, of)
		}
	}
}

func byIndex(a, b postern.Event) int { return cmp.Compare(a.Index, b.Index) }

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
