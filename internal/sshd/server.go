package sshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// Where pam_postern, and the ForceCommand shell, look for the daemon.
const (
	DefaultSocket = "/run/postern/pam.sock"
	ShellSocket   = "/run/postern/shell.sock"
)

// Attempt is somebody who wants in and typed a code.
type Attempt struct {
	User    string // local account name, as claimed
	Service string // PAM service
	Address string // remote host or address, as the service tells; may be empty
	Code    string // as typed
	// Event is what the timeline is to say of an acceptance, but for whom the
	// code proved. Without a kind: nothing.
	Event postern.Event
}

// Proof says who a code proved, and by which credential.
type Proof struct {
	Person     string
	Credential postern.Link
}

// Checker knows the people and their factors. It is safe for concurrent use.
type Checker interface {
	// CheckCode decides whether the code proves whoever may use the account
	// a.User, and uses the code up: it answers at most once with success, on
	// all servers together, and a.Event is on the timeline then, in one durable
	// step with the use of the code. It fails with postern.NotFound for an account
	// whose person has no factor at all, postern.Denied or Invalid for a code
	// that proves nothing, and any other code if it cannot tell. A Proof that
	// comes with an error says what is known of the attempt, for the timeline.
	CheckCode(ctx context.Context, a Attempt) (Proof, error)

	// CheckAccount decides whether the person behind a local account may come
	// in, whatever proves them: postern.Denied for a suspended or removed
	// person, postern.NotFound for an account that no person answers to.
	CheckAccount(ctx context.Context, user string) (person string, err error)
}

// Recorder is the timeline.
type Recorder interface {
	Append(ctx context.Context, events ...postern.Event) error
}

// Config bounds a Server. The zero value works.
type Config struct {
	// Conns is how many questions are worked on at once; further ones wait in
	// the kernel. 0 means 256.
	Conns int
	// ReadTimeout is how long a client may take to put its question after it
	// connected. 0 means 2 seconds; pam_postern takes microseconds.
	ReadTimeout time.Duration
	// Timeout is how long answering may take. 0 means 10 seconds.
	Timeout time.Duration
	// Host names this host in links; empty means its hostname.
	Host string
	// Users makes it answer every user of this host, each about codes for
	// their own account only: the socket of the ForceCommand shell, which
	// runs as the user. Otherwise only root is answered.
	Users bool
	// Account names the account of a user ID, for Users; nil asks this host.
	Account func(uid uint32) (string, error)
}

// Validate reports values out of range.
func (c Config) Validate() error {
	if c.Conns < 0 || c.ReadTimeout < 0 || c.Timeout < 0 {
		return postern.Errorf(postern.Invalid, "the PAM socket's limits must not be negative")
	}
	return nil
}

// Server answers pam_postern.
type Server struct {
	cfg     Config
	check   Checker
	record  Recorder
	log     *slog.Logger
	machine machine
	asked   atomic.Int32 // codes that are waited for
}

// NewServer returns a server that decides with check and writes what happened
// to record.
func NewServer(cfg Config, check Checker, record Recorder, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Conns == 0 {
		cfg.Conns = 256
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 2 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Account == nil {
		cfg.Account = accountOf
	}
	return &Server{
		cfg: cfg, check: check, record: record, log: log,
		machine: thisMachine(cfg.Host),
	}, nil
}

// Listen makes the socket that pam_postern asks on, with mode 0600: only its
// owner, who must be root for pam_postern to trust it, can connect. The
// ForceCommand shell's has mode 0666. A socket that nobody listens on any more
// is replaced; a directory that is missing is made.
func Listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unixpacket", path); err == nil {
		c.Close()
		return nil, postern.Errorf(postern.Conflict, "another server answers on %s", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	// The mode of a socket that is not bound yet becomes its file's mode, so
	// there is no moment at which others can connect.
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// The umask took bits away from it, never added any.
	if err := os.Chmod(path, mode.Perm()); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(true)
	return l.(*net.UnixListener), nil
}

// Serve answers questions until ctx ends, and then waits for those that it is
// working on. It closes l.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, s.cfg.Conns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			s.log.Warn("the PAM socket cannot accept", postern.LogError, err)
			<-slots
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		case err != nil:
			return fmt.Errorf("PAM socket: %w", err)
		}
		wg.Go(func() {
			free := sync.OnceFunc(func() { <-slots })
			defer free()
			defer conn.Close()
			s.serve(ctx, conn, free)
		})
	}
}

// serve answers the one question of a connection. Whatever is wrong, the
// client gets no answer, which it takes for a no. It calls free when it goes on
// without working.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, free func()) {
	peer, err := peerOf(conn)
	if err != nil || peer.Uid != 0 && !s.cfg.Users {
		s.log.Warn("the PAM socket refused a process", postern.LogPID, peer.Pid, postern.LogID, peer.Uid)
		return
	}
	if conn.SetDeadline(time.Now().Add(s.cfg.ReadTimeout)) != nil {
		return
	}
	buf := make([]byte, questionMax+1)
	defer clear(buf)
	n, _, flags, _, err := conn.ReadMsgUnix(buf, nil)
	if err != nil || flags&unix.MSG_TRUNC != 0 {
		s.log.Warn("the PAM socket got no question", postern.LogPID, peer.Pid)
		return
	}
	q, err := ParseQuestion(buf[:n])
	if err != nil {
		s.log.Warn("the PAM socket got no question", postern.LogPID, peer.Pid, postern.LogError, err)
		return
	}
	if s.cfg.Users {
		if name, err := s.cfg.Account(peer.Uid); err != nil || q.Ask != AskCode || q.User != name {
			s.log.Warn("a user asked about another account", postern.LogPID, peer.Pid, postern.LogID, peer.Uid)
			return
		}
		q.Service = "postern-shell"
	}
	if q.Ask == TellAsked {
		ev := s.event(q, loginProcess(int(peer.Pid)))
		free()
		s.awaitCode(ctx, conn, q, ev)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	verdict := s.answer(ctx, q, int(peer.Pid))
	if conn.SetDeadline(time.Now().Add(s.cfg.ReadTimeout)) == nil {
		_, _ = conn.Write(q.answer(verdict)) // gone already: it denied
	}
}

// How long, and for how many at once, a code may be waited for.
const (
	askedMax  = 10 * time.Minute
	askedOnce = 1024
)

// awaitCode puts on the timeline that a code was asked for and none was given:
// that the connection ends without a word.
func (s *Server) awaitCode(ctx context.Context, conn *net.UnixConn, q Question, ev postern.Event) {
	if s.asked.Add(1) > askedOnce {
		s.log.Warn("too many prompts for a code at once: if nobody answers this one, nobody will know", postern.LogID, q.User)
		s.asked.Add(-1)
		return
	}
	defer s.asked.Add(-1)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, len(codeGiven))
	err := conn.SetDeadline(time.Now().Add(askedMax))
	n := 0
	if err == nil {
		n, _ = conn.Read(buf)
	}
	if string(buf[:n]) == codeGiven || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	ev.Person, _ = s.check.CheckAccount(ctx, q.User)
	ev.Outcome, ev.Reason, ev.Took = postern.Refused, "no code was given", time.Since(ev.Time)
	if err := s.record.Append(ctx, ev); err != nil {
		s.log.Error("an SSH login is not on the timeline", postern.LogError, err)
	}
}

func accountOf(uid uint32) (string, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// answer decides, and writes the timeline before anybody is let in.
func (s *Server) answer(ctx context.Context, q Question, pid int) Verdict {
	start := time.Now()
	ev := s.event(q, loginProcess(pid))
	var err error
	switch q.Ask {
	case AskCode:
		var proof Proof
		proof, err = s.check.CheckCode(ctx, Attempt{User: q.User, Service: q.Service, Address: q.Host, Code: q.Code, Event: ev})
		if err == nil {
			return Yes
		}
		ev.Person = proof.Person
		if proof.Credential.ID != "" {
			ev.Links = append(ev.Links, proof.Credential)
		}
	case AskAccount:
		ev.Person, err = s.check.CheckAccount(ctx, q.User)
		if err == nil || postern.CodeOf(err) == postern.NotFound {
			return verdictOf(err) // nothing happened that the timeline wants
		}
	case TellOpened, TellClosed:
		ev.Person, _ = s.check.CheckAccount(ctx, q.User)
	}
	verdict := verdictOf(err)
	if err != nil {
		ev.Outcome, ev.Reason = outcomeOf(err), err.Error()
	}
	ev.Took = time.Since(start)
	// What was decided too late is still on the timeline.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	if err := s.record.Append(ctx, ev); err != nil {
		s.log.Error("an SSH login is not on the timeline", postern.LogError, err)
		if verdict == Yes {
			return Unavailable
		}
	}
	return verdict
}

// event returns what the timeline says of a question, without its outcome.
func (s *Server) event(q Question, pid int) postern.Event {
	ev := postern.Event{
		Time:    time.Now().UTC(),
		Kind:    kindOf(q),
		Outcome: postern.OK,
		Address: printable(q.Host),
		Object:  printable(q.User),
		Links:   s.machine.links(pid),
		Details: map[string]string{"service": printable(q.Service)},
	}
	switch q.Ask {
	case AskCode, TellAsked:
		ev.Details["method"] = "code"
	case AskAccount:
		ev.Details["method"] = "account"
	}
	if q.TTY != "" {
		ev.Details["tty"] = printable(q.TTY)
	}
	return ev
}

// printable returns s with whatever could upset a terminal or a log replaced.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func kindOf(q Question) string {
	ssh := strings.Contains(q.Service, "sshd")
	switch {
	case q.Ask == TellOpened && ssh:
		return postern.EventSSHOpened
	case q.Ask == TellOpened:
		return postern.EventPAMOpened
	case q.Ask == TellClosed && ssh:
		return postern.EventSSHClosed
	case q.Ask == TellClosed:
		return postern.EventPAMClosed
	case ssh:
		return postern.EventSSHAuth
	}
	return postern.EventPAMAuth
}

func verdictOf(err error) Verdict {
	if err == nil {
		return Yes
	}
	switch postern.CodeOf(err) {
	case postern.NotFound:
		return NoFactor
	case postern.Denied, postern.Invalid, postern.TooMany, postern.Conflict:
		return No
	}
	return Unavailable
}

func outcomeOf(err error) postern.Outcome {
	if verdictOf(err) == Unavailable {
		return postern.Failed
	}
	return postern.Refused
}

// peerOf returns who is at the other end of a Unix socket.
func peerOf(conn *net.UnixConn) (unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var peer *unix.Ucred
	var opErr error
	err = raw.Control(func(fd uintptr) {
		peer, opErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, opErr); err != nil {
		return unix.Ucred{}, err
	}
	return *peer, nil
}
