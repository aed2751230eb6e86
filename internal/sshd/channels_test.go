package sshd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/sshd/shell"
	"golang.org/x/crypto/ssh"
)

// channels are the ways to use a connection, each with what shows that it is
// open. What the OpenSSH client calls -D and -W are channels of the same kind
// as -L; -N is a connection without a session; a ControlMaster's later session
// is a second session of the connection.
var channels = []struct {
	name string
	open func(c conn) error
}{
	{"shell", func(c conn) error {
		return inSession(c, func(s *ssh.Session, in io.Writer, out io.Reader) error {
			if err := s.Shell(); err != nil {
				return err
			}
			fmt.Fprintln(in, "echo op''en")
			return expect(out, "open")
		})
	}},
	{"exec", func(c conn) error {
		return inSession(c, func(s *ssh.Session, _ io.Writer, out io.Reader) error {
			return errors.Join(s.Start("echo op''en"), expect(out, "open"))
		})
	}},
	{"sftp", func(c conn) error {
		return inSession(c, func(s *ssh.Session, in io.Writer, out io.Reader) error {
			if err := s.RequestSubsystem("sftp"); err != nil {
				return err
			}
			_, _ = in.Write([]byte{0, 0, 0, 5, 1, 0, 0, 0, 3})
			return expect(out, "\x02\x00\x00\x00\x03")
		})
	}},
	{"scp", func(c conn) error {
		return inSession(c, func(s *ssh.Session, in io.Writer, out io.Reader) error {
			if err := s.Start("scp -f /etc/passwd"); err != nil {
				return err
			}
			_, _ = in.Write([]byte{0})
			return expect(out, "C0644")
		})
	}},
	{"second session", func(c conn) error {
		s, err := c.session()
		if err != nil {
			return err
		}
		defer s.Close()
		return inSession(c, func(s *ssh.Session, _ io.Writer, out io.Reader) error {
			return errors.Join(s.Start("echo op''en"), expect(out, "open"))
		})
	}},
	{"-L", func(c conn) error { return banner(c.Dial("tcp", "127.0.0.1:22")) }},
	{"-L socket", func(c conn) error { return banner(c.Dial("unix", c.dir+"/service")) }},
	{"-R", func(c conn) error { return closing(c.Listen("tcp", "127.0.0.1:0")) }},
	{"-R socket", func(c conn) error {
		return closing(
			c.ListenUnix(filepath.Join(c.dir, "home", c.User(), fmt.Sprint("socket", time.Now().UnixNano()))),
		)
	}},
	{"-w", func(c conn) error {
		unit := uint32(slices.Index([]string{"alice", "fred"}, c.User()))
		ch, reqs, err := c.OpenChannel("tun@openssh.com", ssh.Marshal(struct{ Mode, Unit uint32 }{1, unit}))
		if err == nil {
			go ssh.DiscardRequests(reqs)
			ch.Close()
		}
		return err
	}},
	{"agent", func(c conn) error { return sessionRequest(c, "auth-agent-req@openssh.com", nil) }},
	{"X11", func(c conn) error {
		return sessionRequest(c, "x11-req", ssh.Marshal(struct {
			Single        bool
			Proto, Cookie string
			Screen        uint32
		}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("00", 16), 0}))
	}},
	{"-N", func(c conn) error {
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		return err
	}},
}

// conn is a connection to a test host. code is for a gate to find, typed for
// one that reads it; nil: there is none.
type conn struct {
	*ssh.Client
	dir   string
	code  func() string
	typed func() string

	patience time.Duration // after which a channel that stays silent is shut
}

// session opens a session and hands the gate its code.
func (c conn) session() (*ssh.Session, error) {
	s, err := c.NewSession()
	if err == nil && c.code != nil {
		err = s.Setenv(shell.CodeVariable, c.code())
	}
	return s, err
}

// inSession runs use in a session. What it reads and writes may hang where a
// gate waits for a code, so the session is closed under it after a while.
func inSession(c conn, use func(*ssh.Session, io.Writer, io.Reader) error) error {
	s, err := c.session()
	if err != nil {
		return err
	}
	defer s.Close()
	in, err := s.StdinPipe()
	if err != nil {
		return err
	}
	out, err := s.StdoutPipe()
	if err != nil {
		return err
	}
	to, from := io.Writer(in), out
	if c.typed != nil {
		ty := &typist{in: in, out: out, line: c.typed}
		to, from = ty, ty
	}
	done := make(chan error, 1)
	go func() { done <- use(s, to, from) }()
	select {
	case err := <-done:
		return err
	case <-time.After(c.patience):
		return errors.New("nothing comes")
	}
}

// typist types a line before anything else, once the session has begun: what
// comes earlier sshd throws away.
type typist struct {
	in   io.Writer
	out  io.Reader
	line func() string
	once sync.Once
}

func (ty *typist) begin() { ty.once.Do(func() { fmt.Fprintln(ty.in, ty.line()) }) }

func (ty *typist) Write(p []byte) (int, error) { ty.begin(); return ty.in.Write(p) }

func (ty *typist) Read(p []byte) (int, error) { ty.begin(); return ty.out.Read(p) }

func expect(r io.Reader, want string) error {
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if bytes.Contains(got, []byte(want)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("got %q, not %q: %w", got, want, err)
		}
	}
}

func banner(c net.Conn, err error) error {
	if err != nil {
		return err
	}
	defer c.Close()
	return expect(c, "SSH-2.0-")
}

func closing(c io.Closer, err error) error {
	if err == nil {
		c.Close()
	}
	return err
}

func sessionRequest(c conn, name string, payload []byte) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	ok, err := s.SendRequest(name, true, payload)
	if err == nil && !ok {
		err = errors.New("refused")
	}
	return err
}
