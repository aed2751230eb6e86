package server

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/durable"
)

// renewEvery is how often a server looks whether an intermediate ends soon, and
// renewalSaid how often it logs that it could not make the successor.
const (
	renewEvery  = time.Hour
	renewalSaid = 24 * time.Hour
)

// keepIntermediates makes the successors of intermediates that end soon, until ctx ends.
func (s *server) keepIntermediates(ctx context.Context) {
	every(ctx, renewEvery, func() { s.renewIntermediates(ctx) })
}

// every calls do again and again, that long after the call before, until ctx ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// renewIntermediates makes the successors of intermediates that end soon. Each server,
// this one too, then serves them, since the store's generation has grown.
func (s *server) renewIntermediates(ctx context.Context) {
	made, err := s.authority.RenewIntermediates(ctx)
	for _, i := range made {
		s.log.InfoContext(ctx, "an intermediate ends soon, and its successor issues from now on",
			slog.String(postern.LogCA, i.ID))
	}
	if now := time.Now(); err != nil && ctx.Err() == nil && now.Sub(s.renewalFailed) >= renewalSaid {
		s.renewalFailed = now
		s.log.WarnContext(ctx, "an intermediate ends soon, and its successor could not be made",
			slog.Any(postern.LogError, err))
	}
}

// servedCAs is what the sites and the pages about revocation depend on.
type servedCAs struct {
	server, client int // intermediates
	roots          int
	path           string
}

func (s *server) presentCAs() servedCAs {
	return servedCAs{
		len(s.authority.Intermediates(ca.Server)), len(s.authority.Intermediates(ca.Client)),
		len(s.authority.Roots()), s.authority.URLPath(),
	}
}

// serveNewCAs makes the server load what it serves once more if the CAs are others than
// when it did so last: clients are asked for certificates of those, and a site whose
// certificate ended with its CA gets one of the new.
func (s *server) serveNewCAs() {
	s.writeRoots()
	if served, ok := s.cas.Load().(servedCAs); !ok || served == s.presentCAs() {
		return
	}
	select {
	case s.newCAs <- struct{}{}:
	default:
	}
}

// writeRoots writes the roots to the file of the sample, if that is there and has others.
func (s *server) writeRoots() {
	path, roots := s.state.Path(rootFile), ca.EncodeCertificates(s.authority.Roots()...)
	have, err := os.ReadFile(path)
	if err != nil || bytes.Equal(have, roots) {
		return // there is no sample, or it is as it should be
	}
	if err := durable.Replace(path, roots, 0o644); err != nil {
		s.log.Error("the file of the roots stays as it was", slog.String(postern.LogFile, path),
			slog.Any(postern.LogError, err))
	}
}
