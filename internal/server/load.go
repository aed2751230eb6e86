package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
)

// CheckConfig fails if a Caddyfile cannot be read: NotFound if there is none.
func CheckConfig(file string) error {
	_, err := adaptFile(file)
	return err
}

// adaptFile reads a Caddyfile.
func adaptFile(file string) ([]byte, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "configuration: %w", err)
	}
	config, _, err := front.Adapt(body, file)
	return config, err
}

// load loads the configuration, its services first.
func (s *server) load(ctx context.Context) error {
	config, err := adaptFile(s.file)
	if err != nil {
		return err
	}
	options, err := front.Options(config)
	if err != nil {
		return err
	}
	config, err = front.Defaults{
		Storage: s.state.Path("sites"), Verbose: s.opts.Log.Enabled(ctx, slog.LevelInfo),
		JSON:  s.opts.LogJSON,
		Grace: 10 * time.Second,
	}.Apply(config)
	if err != nil {
		return err
	}
	monitor, err := s.monitorFor(options.Metrics)
	if err != nil {
		return inConfig(s.file, err)
	}
	if err := s.loadServices(ctx, config, options); err != nil {
		s.dropMonitor(monitor)
		return err
	}
	s.adoptMonitor(monitor)
	return nil
}

// loadServices loads a configuration and what its options ask for.
func (s *server) loadServices(ctx context.Context, config []byte, options front.App) error {
	next, err := s.services.prepare(ctx, options)
	if err != nil {
		return err
	}
	if err := s.configureCA(ctx, options); err != nil {
		s.services.keep(next)
		return err
	}
	s.services.mount(next)
	s.cas.Store(s.presentCAs())
	if err := front.Load(config); err != nil {
		s.services.keep(next)
		s.keepPolicies(ctx)
		return inConfig(s.file, err)
	}
	s.services.adopt(next)
	s.served, s.profiles = config, options.Profiles
	s.kept.Store(int64(options.Keep))
	return nil
}

// inConfig names the configuration in the hint of an error about one of its
// ports.
func inConfig(file string, err error) error {
	hint := postern.HintOf(err)
	if code := postern.CodeOf(err); hint == "" || code != postern.Unavailable && code != postern.Denied {
		return err
	}
	return postern.Errorf(postern.CodeOf(err), "%w", err).WithHint("%s; the ports are in %s", hint, file)
}

// reload loads the keys and the configuration again. If one of them fails, the error is
// logged and returned, and the old one stays in effect.
func (s *server) reload(ctx context.Context) error {
	keys := s.state.TakeKeys()
	if keys != nil {
		s.log.ErrorContext(ctx, "the keys stay as they were", slog.Any(postern.LogError, keys))
		keys = postern.Errorf(postern.CodeOf(keys), "the keys stay as they were: %w", keys)
	}
	if err := s.load(ctx); err != nil {
		s.log.ErrorContext(ctx, "the configuration stays as it was", slog.String(postern.LogFile, s.file),
			slog.Any(postern.LogError, err))
		return errors.Join(err, keys)
	}
	s.log.InfoContext(ctx, "configuration loaded", slog.String(postern.LogFile, s.file))
	return keys
}

// serveAgain loads the configuration that is served again, with the current CAs. It does
// not read the file, which may be half edited.
func (s *server) serveAgain(ctx context.Context) {
	s.services.mount(s.services.now)
	s.cas.Store(s.presentCAs())
	if err := front.Load(s.served); err != nil {
		s.log.ErrorContext(ctx, "changed CAs take effect at the next reload only", slog.Any(postern.LogError, err))
		return
	}
	s.log.InfoContext(ctx, "changed CAs take effect")
}

// storeGeneration returns the store's generation, after the authority has read what
// changed: CAs that another process made, and keys that it removed. If reading fails, the
// authority is unchanged, and the next call tries again. Calls must not overlap.
func (s *server) storeGeneration(ctx context.Context) (int64, error) {
	g, err := s.state.Store.Generation(ctx)
	if !errors.Is(err, context.Canceled) {
		s.health.afterRead(err)
	}
	if err != nil || g == s.generation {
		return g, err
	}
	if err := s.authority.Reload(ctx); err != nil {
		s.log.ErrorContext(ctx, "the CAs stay as they were", slog.Any(postern.LogError, err))
		return g, nil
	}
	s.generation = g
	s.serveNewCAs()
	return g, nil
}
