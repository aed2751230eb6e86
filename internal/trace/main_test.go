package trace

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
)

func TestMain(m *testing.M) {
	code := m.Run()
	posterntest.StopLibvirtd()
	os.Exit(code)
}

// collector is a sink that keeps copies of what it gets.
type collector struct {
	mu     sync.Mutex
	events []event.Event
	gate   chan struct{} // nil, or taken from before every event
}

func (c *collector) Event(e *event.Event) error {
	if c.gate != nil {
		<-c.gate
	}
	k := *e
	k.Args, k.Strings = slices.Clone(e.Args), slices.Clone(e.Strings)
	k.Payload = bytes.Clone(e.Payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, k)
	return nil
}

func (c *collector) Idle() error { return nil }

func (c *collector) all() []event.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// of returns the events that hold.
func (c *collector) of(hold func(*event.Event) bool) []event.Event {
	var out []event.Event
	for _, e := range c.all() {
		if hold(&e) {
			out = append(out, e)
		}
	}
	return out
}

// traced runs do while a session with cfg runs, and returns what it saw.
func traced(t *testing.T, cfg Config, do func(l *posterntest.Libvirtd)) (*collector, Summary) {
	t.Helper()
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	c := &collector{}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, c) }()
	do(l)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sum := s.Summary()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return c, sum
}

func virsh(t *testing.T, uri string, args ...string) string {
	t.Helper()
	out, err := posterntest.VirshAt(uri, args...)
	if err != nil {
		t.Fatalf("virsh %v: %v: %s", args, err, out)
	}
	return out
}
