package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/system"
	"golang.org/x/sys/unix"
)

// The agent of root has two processes. The one that reads the kernel and other processes,
// and answers sshd, keeps root's rights and talks to no network: it sends its requests
// over a Unix socket to its child. That has no rights, reads no files, and forwards what
// it is sent to the servers, and nothing but that.

// NetworkUser is the user that the child runs as; nobody where there is no such user.
const NetworkUser = "postern-agent"

// overflowUser is the user of processes without rights (fs.overflowuid of proc(5)).
const overflowUser = 65534

// forwarded are the paths that the child forwards; those that end with a slash with all
// below.
var forwarded = []string{relay.Path, remote.Prefix, host.RefreshPath}

// separate has the target reached through a child without rights until stop is called.
// Its certificate is read again when it changes.
func (s Server) separate(ctx context.Context, dir string, log *slog.Logger) (t *Target, stop func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, "network.sock")
	l, err := system.ListenUnix("unix", path, 0o600)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the last events are sent after ctx has ended
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.keepChild(ctx, l, log)
	}()
	t, transport := newTarget("http://postern")
	transport.DialContext = DialSocket(path)
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, idleConns
	t.Client.Transport = timed{transport}
	return t, func() { cancel(); <-done; l.Close() }, nil
}

// idleConns is how many connections to the child are kept for the next questions.
const idleConns = 64

// keepChild runs the child until ctx ends, and another when it ends or its files change.
func (s Server) keepChild(ctx context.Context, l *net.UnixListener, log *slog.Logger) {
	for ctx.Err() == nil {
		err := s.runChild(ctx, l)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.WarnContext(ctx, "the process that talks to the network ended", slog.Any(postern.LogError, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(childAgain):
		}
	}
}

// After what time a child that has ended is started again, how often its files are looked
// at, and how long it may take to end.
const (
	childAgain = time.Second
	fileEvery  = 10 * time.Second
	childEnds  = 5 * time.Second
)

// timeoutHeader has the milliseconds that a request may take, for the child, which shares
// them among the servers.
const timeoutHeader = "Postern-Timeout"

// timed tells the child how long a request may take.
type timed struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	if deadline, ok := r.Context().Deadline(); ok {
		r = r.Clone(r.Context())
		r.Header.Set(timeoutHeader, strconv.FormatInt(time.Until(deadline).Milliseconds(), 10))
	}
	return t.next.RoundTrip(r)
}

// runChild runs one child until it ends, its files change or ctx ends.
func (s Server) runChild(ctx context.Context, l *net.UnixListener) error {
	told, err := s.network()
	if err != nil {
		return err
	}
	defer clear(told)
	socket, err := l.File()
	if err != nil {
		return err
	}
	defer socket.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "agent", "network")
	cmd.Env, cmd.Stderr, cmd.ExtraFiles = childEnv(), os.Stderr, []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: networkUser()}
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Cancel, cmd.WaitDelay = in.Close, childEnds // its user is another, so that it cannot be killed by all
	before := fingerprint(s.files())
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := in.Write(told); err != nil {
		cancel()
	}
	go func() {
		tick := time.NewTicker(fileEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if fingerprint(s.files()) != before {
					cancel()
				}
			}
		}
	}()
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// childEnv returns the environment of the child: what says how to reach the network, and whom
// to trust there.
func childEnv() []string {
	env := []string{"HOME=/"}
	for _, key := range []string{
		"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
	} {
		if value := os.Getenv(key); value != "" {
			env = append(env, key+"="+value)
		}
	}
	return env
}

func (s Server) files() []string { return []string{s.Cert, s.Key, s.CA} }

// networkUser returns whom the child runs as.
func networkUser() *syscall.Credential {
	c := &syscall.Credential{Uid: overflowUser, Gid: overflowUser}
	if u, err := user.Lookup(NetworkUser); err == nil {
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil && uid != 0 && gid != 0 {
			c.Uid, c.Gid = uint32(uid), uint32(gid)
		}
	}
	return c
}

// maxForwarded bounds a request, in bytes: a batch of events is the longest.
const maxForwarded = 1<<20 + 1

// Network is the child: it reads what it is told from in, and forwards requests that come
// in over the listening socket listener until in or ctx ends.
func Network(ctx context.Context, in io.Reader, listener *os.File, log *slog.Logger) error {
	// Its user may be others' too: those do not read the host's key in its memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	var n network
	if err := json.NewDecoder(in).Decode(&n); err != nil || os.Geteuid() == 0 {
		return postern.Errorf(postern.Invalid, "this is a part of the agent, which starts it by itself")
	}
	target, err := n.target()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // to the end, which is the parent's
		cancel()
	}()
	l, err := net.FileListener(listener)
	if err != nil {
		return err
	}
	base, err := url.Parse(target.Base)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(base) },
		Transport: target.Client.Transport,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	server := &http.Server{
		Handler: forward(proxy), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// forward passes on what the agent asks, and nothing else. A body is read whole, so that
// it can be sent to another server when one does not answer.
func forward(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, path := range forwarded {
			if r.URL.Path != path && !(strings.HasSuffix(path, "/") && strings.HasPrefix(r.URL.Path, path)) {
				continue
			}
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForwarded))
			if err != nil {
				http.Error(w, "the request is too long", http.StatusRequestEntityTooLarge)
				return
			}
			if ms, err := strconv.ParseInt(r.Header.Get(timeoutHeader), 10, 32); err == nil {
				ctx, cancel := context.WithTimeout(r.Context(), time.Duration(ms)*time.Millisecond)
				defer cancel()
				r = r.WithContext(ctx)
			}
			r.Header.Del(timeoutHeader)
			r.Body = io.NopCloser(bytes.NewReader(body))
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
			next.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	})
}
