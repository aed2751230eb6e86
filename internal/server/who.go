package server

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/console"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/store"
)

// Session is a session that is open, by the timeline.
type Session = console.Session

// OpenSessions returns the sessions that are open, the oldest first.
func OpenSessions(ctx context.Context, db *store.DB) ([]Session, error) {
	return openSessions(db)(ctx)
}

// openSessions returns what returns the sessions that are open, and reads only new entries
// when it is asked again.
func openSessions(db *store.DB) func(context.Context) ([]Session, error) {
	s := &console.Sessions{Log: db.Timeline().Recent()}
	return func(ctx context.Context) ([]Session, error) {
		late, err := lateHosts(ctx, db)
		if err != nil {
			return nil, err
		}
		return s.Open(ctx, hostName(), late)
	}
}

// lateHosts returns the hosts that have joined and have not reported lately.
func lateHosts(ctx context.Context, db *store.DB) (map[string]bool, error) {
	hosts, err := db.Hosts().Hosts(ctx)
	late := map[string]bool{}
	for _, h := range hosts {
		late[h.Name] = h.Status != postern.HostJoined || db.Now().Sub(h.Heard) >= host.Late
	}
	return late, err
}
