package otp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

// The tests of what happens when a server dies need one that can: the test
// program itself, started again with these in its environment.
const (
	serverURL  = "POSTERN_TEST_OTP_DATABASE"
	serverAddr = "POSTERN_TEST_OTP_LISTEN"
)

func TestMain(m *testing.M) {
	if db := os.Getenv(serverURL); db != "" {
		fmt.Fprintln(os.Stderr, serve(db, os.Getenv(serverAddr)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serve serves the validation service over a database until it is killed.
func serve(db, addr string) error {
	s, err := store.Open(context.Background(), store.Config{URL: db, Key: storetest.Key})
	if err != nil {
		return err
	}
	service, err := otp.NewService(otp.Config{}, s.OTP(), s)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return http.Serve(l, service)
}

// server is a validation service in a process of its own.
type server struct {
	t    *testing.T
	url  string // of the database
	addr string
	wrap []string // a command that starts it
	cmd  *exec.Cmd
	http *http.Client
}

func newServer(t *testing.T, db string, wrap ...string) *server {
	s := &server{
		t: t, url: db, wrap: wrap,
		addr: fmt.Sprintf("127.0.0.1:%d", posterntest.FreePort(t)),
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	t.Cleanup(s.kill)
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

// start starts the server and waits until it listens.
func (s *server) start() {
	s.t.Helper()
	args := append(append([]string{}, s.wrap...), os.Args[0])
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env = append(os.Environ(), serverURL+"="+s.url, serverAddr+"="+s.addr)
	var errs strings.Builder
	s.cmd.Stderr = &errs
	out, err := s.cmd.StdoutPipe()
	must(s.t, err)
	must(s.t, s.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		s.t.Fatalf("the server does not start: %v\n%s", err, errs.String())
	}
	go io.Copy(io.Discard, out)
}

// kill ends the server with SIGKILL.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// present shows a code to the server and returns the status, or "" when there
// was no answer.
func (s *server) present(code string) otp.Status {
	status, err := presentTo(s.http, "http://"+s.addr, code)
	if err != nil {
		return ""
	}
	return status
}

func presentTo(c *http.Client, base, code string) (otp.Status, error) {
	q := url.Values{
		"id": {"1"}, "otp": {code},
		"nonce": {fmt.Sprintf("%016x%08x", time.Now().UnixNano(), nonces.Add(1))},
	}
	resp, err := c.Get(base + "/wsapi/2.0/verify?" + q.Encode())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(body)) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "status="); ok {
			return otp.Status(s), nil
		}
	}
	return "", errors.New("an answer without a status")
}
