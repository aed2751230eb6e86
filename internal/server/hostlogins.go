package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/state"
)

// newHostLogins answers the questions of other hosts' agents about who logs in there.
func newHostLogins(st *state.State, one *OneTime, log *slog.Logger) http.Handler {
	return remote.NewHandler(remote.Config{
		Host: func(r *http.Request) (string, error) {
			source, err := sourceOf(r, st.Store.Hosts())
			return source.Host, err
		},
		Checker: func(host string) sshd.Checker {
			return SSHChecker{OTP: one.Checker, DB: st.Store, Host: host}
		},
		Check: relay.Check,
		Update: func(ctx context.Context, host string, seen remote.Seen) (remote.Update, error) {
			return updateOf(ctx, st, host, seen)
		},
		Cut: front.Disconnect,
		Log: log,
	})
}

// updateOf returns what a host has not seen yet.
func updateOf(ctx context.Context, st *state.State, host string, seen remote.Seen) (u remote.Update, err error) {
	signed, growth, err := st.Store.Timeline().Growth(ctx, seen.Size)
	if err != nil {
		return u, err
	}
	u.Checkpoint = signed
	for _, h := range growth {
		u.Growth = append(u.Growth, h[:])
	}
	set, err := st.Store.Rescue().Set(ctx, host)
	switch {
	case err != nil || len(set.Hashes) == 0:
	case set.ID == seen.Rescue:
		err = st.Store.Rescue().Taken(ctx, host, set)
	default:
		u.Rescue, err = json.Marshal(set)
	}
	return u, err
}
