package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
)

// serveEnv is the environment variable with the Options of a test's server, as JSON.
const serveEnv = "POSTERN_TEST_SERVE"

// TestMain runs the tests, or, in a process that a test starts, a server or a part of
// an agent.
func TestMain(m *testing.M) {
	if text := os.Getenv(serveEnv); text != "" {
		if err := serveForTest(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if slices.Equal(os.Args[1:], []string{"agent", "network"}) { // the agent of a test starts it
		if err := agent.Network(context.Background(), os.Stdin, os.NewFile(3, "socket"),
			slog.New(slog.DiscardHandler)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(posterntest.Run(m))
}

func serveForTest(text string) error {
	var o Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	o.Ready = func(s *Started) { fmt.Println("serves", s.Config) }
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go freeAtSignals()
	return Run(ctx, o)
}

// freeAtSignals collects garbage and returns its memory at each SIGUSR1, so that a test can
// measure what is held, and says so.
func freeAtSignals() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	for range signals {
		for range 4 { // stacks shrink by half each time
			debug.FreeOSMemory()
		}
		fmt.Println("freed")
	}
}

// running is a server in a process of its own.
type running struct {
	t     *testing.T
	opts  Options
	cmd   *exec.Cmd
	out   *printed
	ended chan error
}

// printed collects the output of a program.
type printed struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// startServer starts a server on a new state directory, with the sample unless a
// configuration is given, and waits until it serves.
func startServer(t *testing.T, change func(*Options)) *running {
	t.Helper()
	r := &running{t: t, opts: Options{
		State: filepath.Join(t.TempDir(), "state"), Person: "ann", HTTPSPort: posterntest.FreePort(t),
		HTTPPort: posterntest.FreePort(t),
	}}
	if change != nil {
		change(&r.opts)
	}
	r.start()
	return r
}

func (r *running) start() {
	r.t.Helper()
	if err := r.tryStart(); err != nil {
		r.t.Fatal(err)
	}
}

// tryStart starts a server and waits until it serves; if it ends before, the
// error is what it printed.
func (r *running) tryStart() error {
	r.t.Helper()
	text, err := json.Marshal(map[string]any{
		"State": r.opts.State, "Config": r.opts.Config, "Person": r.opts.Person, "HTTPSPort": r.opts.HTTPSPort,
		"HTTPPort": r.opts.HTTPPort,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd, out, ended := exec.Command(os.Args[0]), new(printed), make(chan error, 1)
	cmd.Env = append(os.Environ(), serveEnv+"="+string(text), "HOME="+r.t.TempDir())
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	r.cmd, r.out, r.ended = cmd, out, ended
	r.t.Cleanup(func() { r.stop() })
	for !strings.Contains(out.String(), "serves ") {
		select {
		case err := <-ended:
			ended <- err
			return errors.New(out.String())
		default:
			posterntest.Pause(r.t)
		}
	}
	return nil
}

// stop asks the server to stop, and returns how it ended.
func (r *running) stop() error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	err := <-r.ended
	r.ended <- err
	return err
}

// kill sends SIGKILL to the server.
func (r *running) kill() { _ = r.cmd.Process.Kill() }

// await waits until something holds.
func (r *running) await(ready func() bool) {
	r.t.Helper()
	for !ready() {
		select {
		case err := <-r.ended:
			r.ended <- err
			r.t.Fatalf("the server ended: %v\n%s", err, r.out)
		default:
			posterntest.Pause(r.t)
		}
	}
}

// me returns curl's flags for the first person's certificate.
func (r *running) me() []string {
	base := filepath.Join(r.opts.State, "first", r.opts.Person)
	return []string{"--cert", base + ".crt", "--key", base + ".key"}
}

// open opens the state of the running server.
func (r *running) open() *state.State {
	r.t.Helper()
	st, err := state.Open(r.t.Context(), r.opts.State)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { st.Close() })
	return st
}

// root returns the root certificate of the server's authority.
func (r *running) root() *x509.Certificate {
	r.t.Helper()
	authority, err := ca.Open(r.t.Context(), ca.Config{}, r.open().Store.CA())
	if err != nil {
		r.t.Fatal(err)
	}
	return authority.Root()
}
