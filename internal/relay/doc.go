// Package relay transports events from the hosts that see them to the server that
// keeps the timeline. The sending side writes every event to a spool on disk and
// deletes it when the server has acknowledged it. The receiving side remembers the
// highest number of each sender, so that an event that is sent again is recorded
// once, and lost ones are recorded as a number.
//
// On the wire a batch is a POST of JSON lines: a header, then one [Numbered]
// event a line. The answer is a JSON object with the number up to which all events
// are durable or given up.
package relay

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
)

// Path is where a server takes batches.
const Path = "/api/events"

// Bounds of a batch and of a line in it.
const (
	maxBatchBytes  = 1 << 20
	maxBatchEvents = 500
	maxLine        = 64 << 10
	maxLinks       = 16 // of an event
)

// Numbered is an event with its number among those of its sender, from 1. A
// number that is left out is an event that was lost.
type Numbered struct {
	Seq   int64         `json:"seq"`
	Event postern.Event `json:"event"`
}

// header is the first line of a batch.
type header struct {
	Agent string `json:"agent"` // the sender's random name, 32 hex digits
	Host  string `json:"host"`  // name of the host that it runs on
	// Now is the sender's time when it sent the batch; zero from a sender of an
	// earlier version.
	Now time.Time `json:"now,omitzero"`
}

// answer is the server's answer to a batch.
type answer struct {
	Seq   int64  `json:"seq"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// validAgent reports whether s is 16 bytes in lower-case hexadecimal.
func validAgent(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16 && s == strings.ToLower(s)
}

// How far the time of an event may be from the server's, and how long a call may
// have taken.
const (
	maxAhead = 5 * time.Minute
	maxAge   = 90 * 24 * time.Hour
	maxTook  = 30 * 24 * time.Hour
)

// Check returns why an event of a sender on a host is refused. A sender may report
// what it saw on its own host, but not which person did it: the server finds the
// person.
func Check(e postern.Event, host string, now time.Time) error {
	kind, _ := postern.EventKindOf(e.Kind)
	switch {
	case !kind.FromHost:
		return fmt.Errorf("an agent may not report %.40q", e.Kind)
	case e.Index != 0:
		return fmt.Errorf("the event has an index in the timeline")
	case e.Person != "":
		return fmt.Errorf("the event names a person")
	case (e.Kind == postern.EventCheckSSH || e.Kind == postern.EventCheckTimeline) && e.Object != host:
		return fmt.Errorf("the check is of %.80q, the sender is %q", e.Object, host)
	case e.Host != host:
		return fmt.Errorf("the event is of the host %.80q, the sender is %q", e.Host, host)
	case e.Time.After(now.Add(maxAhead)) || e.Time.Before(now.Add(-maxAge)):
		return fmt.Errorf("the event is of %s", e.Time.UTC().Format(time.RFC3339))
	case !slices.Contains([]postern.Outcome{postern.OK, postern.Refused, postern.Failed, postern.Unknown}, e.Outcome):
		return fmt.Errorf("%.40q is no outcome", e.Outcome)
	case len(e.Links) > maxLinks:
		return fmt.Errorf("the event has %d links", len(e.Links))
	case e.Took < 0 || e.Took > maxTook || e.Count < 0:
		return fmt.Errorf("the event took %v and has the count %d", e.Took, e.Count)
	}
	if _, err := netip.ParseAddr(e.Address); e.Address != "" && err != nil {
		return fmt.Errorf("%.80q is no address", e.Address)
	}
	for key := range e.Details {
		if key != coalesce.LastSeen && !slices.Contains(kind.Details, key) {
			return fmt.Errorf("an agent's event has no detail %.40q", key)
		}
	}
	for _, l := range e.Links {
		if err := checkLink(l, e.Kind, host); err != nil {
			return err
		}
	}
	return nil
}

// checkLink accepts links to logins, sessions and processes of the sender's host and to
// virtual machines, and from a login to the SSH key and certificate that sshd names:
// never to a credential that the server itself checks.
func checkLink(l postern.Link, kind, host string) error {
	switch l.Kind {
	case string(postern.SSHCertificate), string(postern.SSHKey):
		if kind == postern.EventSSHAuth {
			return nil
		}
	case postern.LinkLogin, postern.LinkSession, postern.LinkProcess:
		if strings.HasPrefix(l.ID, host+"/") {
			return nil
		}
		return fmt.Errorf("the link %.80q is of another host than %s", l.ID, host)
	case postern.LinkDomain:
		return nil
	}
	return fmt.Errorf("an agent's event has no link of kind %.40q", l.Kind)
}
