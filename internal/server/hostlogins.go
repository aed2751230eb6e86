package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/tlog"
)

// newHostLogins answers the questions of other hosts' agents about who logs in there.
func newHostLogins(st *state.State, one *OneTime, log *slog.Logger) http.Handler {
	updates := hostUpdates{st.Store, &sightings{log: st.Store.Timeline()}}
	return remote.NewHandler(remote.Config{
		Host: func(r *http.Request) (string, error) {
			source, err := sourceOf(r, st.Store.Hosts())
			return source.Host, err
		},
		Checker: func(host string) sshd.Checker {
			return SSHChecker{OTP: one.Checker, DB: st.Store, Host: host}
		},
		Check:  relay.Check,
		Update: updates.of,
		Cut:    front.Disconnect,
		Log:    log,
	})
}

// hostUpdates are what hosts have not seen yet.
type hostUpdates struct {
	db   *store.DB
	seen *sightings
}

// of returns what a host has not seen yet.
func (d hostUpdates) of(ctx context.Context, host string, seen remote.Seen) (u remote.Update, err error) {
	if err := d.timeline(ctx, host, seen, &u); err != nil {
		return u, err
	}
	set, err := d.db.Rescue().Set(ctx, host)
	switch {
	case err != nil || len(set.Hashes) == 0:
	case set.ID == seen.Rescue:
		err = d.db.Rescue().Taken(ctx, host, set)
	default:
		u.Rescue, err = json.Marshal(set)
	}
	return u, err
}

// timeline adds what the timeline is now to an update, with the proofs that it contains what
// this host and another one saw.
func (d hostUpdates) timeline(ctx context.Context, host string, seen remote.Seen, u *remote.Update) error {
	var size int64
	if seen.Checkpoint != "" {
		c, err := timeline.ReadCheckpoint(seen.Checkpoint)
		if err != nil {
			return postern.Errorf(postern.Invalid, "what the host saw: %w", err)
		}
		size = c.Size
		if err := d.seen.report(ctx, host, seen.Checkpoint); err != nil {
			return err
		}
	}
	name, other := d.seen.other(host)
	signed, proofs, err := d.db.Timeline().Growth(ctx, size, other.size)
	if err != nil {
		return err
	}
	u.Checkpoint, u.Growth = signed, hashes(proofs[0])
	if name != "" {
		u.Other = &remote.Sighting{Host: name, Checkpoint: other.signed, Growth: hashes(proofs[1])}
	}
	return nil
}

func hashes(proof tlog.TreeProof) (list [][]byte) {
	for _, h := range proof {
		list = append(list, h[:])
	}
	return list
}
