//go:build !linux

package inflight

import (
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
)

// Looker looks at nothing: it needs Linux.
type Looker struct{}

// NewLooker returns a Looker.
func NewLooker() *Looker { return &Looker{} }

// Close does nothing.
func (*Looker) Close() {}

// Look returns nothing.
func (*Looker) Look([]*capture.Library, correlate.Snapshot) []Daemon { return nil }
