//go:build !linux

package capture

import (
	"context"

	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
)

var errNeedsLinux = system.NeedsLinux("watching libvirt")

func (c Config) checkKernel() error { return errNeedsLinux }

// Session is a running trace: there is none but on Linux.
type Session struct{}

// Start fails: it needs Linux.
func Start(Config) (*Session, error) { return nil, errNeedsLinux }

// Find fails: it needs Linux.
func Find(Config) ([]*Library, error) { return nil, errNeedsLinux }

// Ready fails: it needs Linux.
func Ready() (files int, err error) { return 0, errNeedsLinux }

// Run fails: it needs Linux.
func (*Session) Run(context.Context, event.Sink) error { return errNeedsLinux }

// Summary is empty.
func (*Session) Summary() event.Summary { return event.Summary{} }

// Snapshot is empty.
func (*Session) Snapshot(context.Context) correlate.Snapshot { return correlate.Snapshot{} }

// Libraries returns none.
func (*Session) Libraries() []*Library { return nil }

// Close does nothing.
func (*Session) Close() error { return nil }
