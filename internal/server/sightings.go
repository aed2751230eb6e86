package server

import (
	"context"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// sightings are the newest checkpoints of the timeline that hosts have reported, so that
// each host learns what another was shown: one that this timeline does not contain says to
// all of them that it was rolled back, or forked. They are kept in memory: hosts report
// every few seconds. It is safe for concurrent use.
type sightings struct {
	log store.Timeline

	mu sync.Mutex
	by map[string]sighting // by host
}

type sighting struct {
	at        time.Time // of the report
	signed    string
	size      int64
	contained bool // in the timeline
}

// reportedWithin is for how long a report is relayed. Hosts report every few seconds, but for
// those that are suspended or removed, or forgot what they saw after a restore.
const reportedWithin = time.Minute

// report takes what a host says that it saw. What the log has not signed is not accepted, so
// that no host can have the others distrust this server.
func (s *sightings) report(ctx context.Context, host, signed string) error {
	keys, err := timeline.ParseKeys(s.log.LogVerifier())
	if err != nil {
		return err
	}
	c, err := timeline.OpenCheckpoint(signed, keys)
	if err != nil {
		return nil //nolint:nilerr // not of this log
	}
	contained, err := s.log.Contains(ctx, c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]sighting{}
	}
	s.by[host] = sighting{time.Now(), signed, c.Size, contained}
	return nil
}

// other returns what another host than this one saw: what the timeline does not contain, or
// else the newest. It returns "" if no other has reported.
func (s *sightings) other(host string) (name string, seen sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, x := range s.by {
		if time.Since(x.at) >= reportedWithin {
			delete(s.by, h)
		} else if h != host && (name == "" || seen.contained && (!x.contained || x.size > seen.size)) {
			name, seen = h, x
		}
	}
	return name, seen
}
