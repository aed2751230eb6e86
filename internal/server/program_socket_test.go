package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestARestartFailsNoRequest restarts a server whose socket is another's, as systemd's is,
// twice while clients ask: each of their requests is answered. The server says when it is
// ready and when it stops.
func TestARestartFailsNoRequest(t *testing.T) {
	r := startRun(t, filepath.Join(t.TempDir(), "state")) // makes the sample, and its certificate
	r.curl(r.url("/"))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.https))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	said := notified(t, r)
	r.sockets = []*os.File{socket}
	r.start()

	asking, stop := context.WithCancel(t.Context())
	var answered atomic.Int64
	var clients sync.WaitGroup
	get := freshConnections(t, r)
	for range 4 {
		clients.Go(func() {
			for asking.Err() == nil {
				if err := get(); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	for range 2 {
		more(r, &answered)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		r.start()
	}
	more(r, &answered)
	stop()
	clients.Wait()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for start := time.Now(); strings.Count(said(), "STOPPING=1\n") < 3; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("it was stopped three times, and said\n%s", said())
		}
	}
	if strings.Count(said(), "READY=1\n") < 3 {
		t.Errorf("it was started three times, and said\n%s", said())
	}
}

// more waits for answers that come from now on.
func more(r *running, answered *atomic.Int64) {
	r.t.Helper()
	n := answered.Load()
	r.await(func() bool { return answered.Load() > n+20 })
}

// freshConnections returns a function that gets the first page of a server on a connection
// of its own.
func freshConnections(t *testing.T, r *running) func() error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(posterntest.Read(t, filepath.Join(r.state, "root.pem"))))
	address := fmt.Sprintf("127.0.0.1:%d", r.https)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
	}}
	return func() error {
		resp, err := client.Get(r.url("/"))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the server answers %s", resp.Status)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
}

// notified makes a server notify the test in systemd's place, and returns what it has said.
func notified(t *testing.T, r *running) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r.env = append(r.env, "NOTIFY_SOCKET="+path)
	said := new(printed)
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			fmt.Fprintf(said, "%s\n", b[:n])
		}
	}()
	return said.String
}
