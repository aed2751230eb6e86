package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/capture"
)

// watching is a trace of calls that was begun.
type watching struct {
	session     *capture.Session
	calls       *calls
	closeFlight func() error
}

// watch begins to see calls.
func (c Config) watch(report *reporter) (*watching, error) {
	w := &watching{calls: newCalls(c.Host, c.Watched, report.event)}
	cfg := capture.Config{What: capture.RPC, Paths: c.Paths, Filter: c.Watched.filter()}
	var err error
	if w.closeFlight, err = c.fly(&cfg, w.calls); err != nil {
		return nil, err
	}
	if w.session, err = capture.Start(cfg); err != nil {
		return nil, errors.Join(err, w.closeFlight())
	}
	return w, nil
}

// work reports until ctx ends: calls that are watched already, or logins and, as soon as
// this host has libvirt, its calls.
func (c Config) work(ctx context.Context, w *watching, report *reporter) error {
	if w == nil {
		stop, err := c.startLogins(ctx, report)
		if err != nil {
			return err
		}
		defer stop()
		if w = c.awaitLibvirt(ctx, report); w == nil {
			return nil
		}
	}
	if c.Ready != nil {
		c.Ready(w.session)
	}
	err := w.session.Run(ctx, w.calls)
	return errors.Join(err, w.closeFlight(), w.session.Close())
}

// libvirtEvery is how often a host without libvirt is looked at again.
const libvirtEvery = 5 * time.Minute

// awaitLibvirt begins to see calls once that is possible; nil when ctx ends before.
func (c Config) awaitLibvirt(ctx context.Context, report *reporter) *watching {
	if c.Watched != nil && len(c.Watched) == 0 {
		<-ctx.Done()
		return nil
	}
	for warned := false; ; warned = true {
		w, err := c.watch(report)
		if err == nil {
			return w
		}
		if !warned {
			c.Log.WarnContext(ctx, "calls to libvirt are not seen yet", slog.Any(postern.LogError, err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(libvirtEvery):
		}
	}
}
