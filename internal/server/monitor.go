package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/coalesce"
	"github.com/postern-project/postern/internal/metrics"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
)

// lateAfter is how long an agent may be silent: five times as long as it is silent when it
// has nothing to send.
const lateAfter = 5 * time.Minute

// monitor serves /metrics, /livez and /readyz at an address of its own.
type monitor struct {
	address string
	server  *http.Server
	listen  net.Listener
	running sync.WaitGroup
}

// monitorFor returns the monitor for an address, which the caller runs or closes: the one
// that is served if the address is the same, nil if it is "".
func (s *server) monitorFor(address string) (*monitor, error) {
	if address == "" || s.monitor != nil && s.monitor.address == address {
		return sameMonitor(s.monitor, address), nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "listen for the monitoring: %w", err).
			WithHint("choose another address for it")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.health.ready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return &monitor{address: address, listen: l, server: &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		WriteTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}}, nil
}

func sameMonitor(m *monitor, address string) *monitor {
	if address == "" {
		return nil
	}
	return m
}

// adoptMonitor serves the monitor in place of the one that was served; nil serves none.
func (s *server) adoptMonitor(next *monitor) {
	if next == s.monitor {
		return
	}
	s.monitor.close()
	s.monitor = next
	if next == nil {
		return
	}
	next.running.Go(func() {
		if err := next.server.Serve(next.listen); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the server is not monitored any more", slog.Any(postern.LogError, err))
		}
	})
}

// dropMonitor closes a monitor that is not served.
func (s *server) dropMonitor(m *monitor) {
	if m != s.monitor {
		m.close()
	}
}

func (m *monitor) close() {
	if m == nil {
		return
	}
	_ = m.server.Close() // no answer is worth waiting for
	_ = m.listen.Close() // it may not have been served
	m.running.Wait()
}

// observe counts what is written, and learns from it whether the database is available.
func (s *server) observe(b store.Batch) {
	if b.Err != nil {
		s.metrics.NotWritten(len(b.Waited))
	} else {
		s.metrics.Wrote(b.Waited, b.Events)
	}
	if b.Err == nil || store.IsOutage(b.Err) {
		s.health.afterWrite(b.Err)
	}
}

// codesAccepted reports whether one-time passwords are accepted.
func (s *server) codesAccepted() bool { return !s.state.Refusing() }

// sources is what is read for the metrics.
func (s *server) sources() metrics.Sources {
	return metrics.Sources{
		Up: s.health.up, Codes: s.codesAccepted,
		Decisions: front.Decisions, Unwritten: coalesce.Unwritten, CAs: s.caEnds,
		Stored: s.stored,
		Free: func() (int64, bool) {
			free, ok := system.Free(s.state.Dir)
			return int64(free), ok
		},
	}
}

// caEnds returns when the CAs end that were not revoked. Those of SSH do not end.
func (s *server) caEnds() (list []metrics.CA) {
	for _, i := range s.authority.Issuers() {
		if len(i.Certificate) == 0 || !i.Revoked.IsZero() {
			continue
		}
		if c, err := x509.ParseCertificate(i.Certificate); err == nil {
			list = append(list, metrics.CA{Name: i.ID, End: c.NotAfter})
		}
	}
	return list
}

// stored reads the numbers of the database.
func (s *server) stored(ctx context.Context) (n metrics.Stored, err error) {
	db := s.state.Store
	if n.Entries, err = db.Timeline().LogSize(ctx); err != nil {
		return n, err
	}
	if n.Bytes, err = db.Bytes(ctx); err != nil {
		return n, err
	}
	if n.Mail, err = db.Portal().Queued(ctx); err != nil {
		return n, err
	}
	if n.Alerts, err = db.Alerts().Queued(ctx); err != nil {
		return n, err
	}
	witnesses, err := db.Timeline().Witnesses(ctx)
	if err != nil {
		return n, err
	}
	for _, w := range witnesses {
		n.Witnesses = append(n.Witnesses, metrics.Witness{
			Name: w.Name, Cosigned: w.Time, Entries: w.Size, OK: w.Problem == "",
		})
	}
	agents, err := db.Relay().Agents(ctx)
	for _, a := range agents {
		if n.Agents++; time.Since(a.Heard) > lateAfter {
			n.AgentsLate++
		}
	}
	return n, err
}
