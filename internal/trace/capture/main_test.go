package capture

import (
	"context"
	"log"
	"os"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// processEnv says which of [processes] the test binary is. Without it, it runs
// the tests.
const processEnv = "POSTERN_TEST_PROCESS"

// processes are what tests start in a process of its own.
var processes = map[string]func() error{"start": startOnce, "trace": traceUntilKilled}

func TestMain(m *testing.M) {
	if run, ok := processes[os.Getenv(processEnv)]; ok {
		if err := run(); err != nil {
			log.Fatal(err)
		}
		return
	}
	code := m.Run()
	posterntest.StopLibvirtd()
	os.Exit(code)
}

// traced runs do while a session with cfg runs, and returns what it saw.
func traced(t *testing.T, cfg Config, do func(l *posterntest.Libvirtd)) (*tracetest.Collector, event.Summary) {
	t.Helper()
	l := posterntest.SharedLibvirtd(t)
	defer posterntest.TraceAlone(t)()
	c := &tracetest.Collector{}
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
