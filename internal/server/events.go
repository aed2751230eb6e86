package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
)

const agentGroup = "agents" // who may send events

// newRemoteEvents receives events from agents on other hosts. Each is of a host that has
// joined, or a person in the group agents, and may send events of the host with the same name.
func newRemoteEvents(st *state.State, log *slog.Logger) (http.Handler, error) {
	return relay.NewHandler(relay.Config{
		Source:   func(r *http.Request) (relay.Source, error) { return sourceOf(r, st.Store.Hosts()) },
		Complete: (&attribution{st: st, log: log}).complete,
	}, st.Store.Relay(), log)
}

// sourceOf returns the agent that a request comes from, by its client certificate: a host
// that has joined, or a person in the group agents.
func sourceOf(r *http.Request, hosts store.Hosts) (relay.Source, error) {
	h, err := hostOf(r, hosts)
	if err == nil {
		return relay.Source{Name: "joined:" + h.Name, Host: h.Name}, nil
	}
	if postern.CodeOf(err) != postern.Denied {
		return relay.Source{}, err
	}
	who, _, ok := front.Identify(r)
	if !ok || !slices.Contains(who.Groups, agentGroup) {
		return relay.Source{}, postern.Errorf(postern.Denied, "only agents send events and ask about logins").
			WithHint("an agent shows the client certificate of a host, or of a person in the group %s", agentGroup)
	}
	return relay.Source{Name: "person:" + who.Name, Host: who.Name}, nil
}

// EventService receives events from the agent on this host.
type EventService struct {
	server  *http.Server
	running sync.WaitGroup
}

// Close waits for batches that are being written.
func (s *EventService) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	s.running.Wait()
	return err
}

// ServeEvents receives events on a Unix socket in the state directory, from root and the
// server's own user, and their requests to load the configuration again.
func ServeEvents(st *state.State, reload http.Handler, log *slog.Logger) (*EventService, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "the name of this host: %w", err)
	}
	h, err := relay.NewHandler(relay.Config{
		Source: func(r *http.Request) (relay.Source, error) {
			if !trustedPeer(r) {
				return relay.Source{}, postern.Errorf(postern.Denied, "only root sends events over this socket")
			}
			return relay.Source{Name: "host:" + host, Host: host, Self: true}, nil
		},
		Complete: (&attribution{st: st, log: log}).complete,
	}, st.Store.Relay(), log)
	if err != nil {
		return nil, err
	}
	l, err := system.ListenUnix("unix", st.Path(relay.Socket), 0o600)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "listen for the agent: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.Handle("POST "+reloadPath, reload)
	s := &EventService{server: &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ConnContext: withPeer, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	s.running.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the agent's events are not received any more", slog.Any(postern.LogError, err))
		}
	})
	return s, nil
}

// trustedPeer reports whether the peer is root or the server's own user.
func trustedPeer(r *http.Request) bool {
	uid, ok := r.Context().Value(peerUID{}).(int)
	return ok && (uid == 0 || uid == os.Geteuid())
}

// peerUID is the context key of the peer's user ID, as the kernel reports it.
type peerUID struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	peer, err := system.PeerOf(u)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerUID{}, peer.UID)
}
