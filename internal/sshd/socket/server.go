// Package socket answers pam_postern's questions over a Unix socket: whether a
// code proves an account, and whether an account may log in at all.
package socket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/process"
	"github.com/postern-project/postern/internal/system"
)

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
	check   sshd.Checker
	record  sshd.Recorder
	log     *slog.Logger
	machine process.Machine
	logins  logins
	refused *coalesce.Writer // while it serves
	asked   atomic.Int32     // codes that are waited for
}

// NewServer returns a server that decides with check and writes what happened
// to record.
func NewServer(cfg Config, check sshd.Checker, record sshd.Recorder, log *slog.Logger) (*Server, error) {
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
		machine: process.This(cfg.Host),
	}, nil
}

// Listen makes the socket that pam_postern asks on, with mode 0600: only its
// owner, who must be root for pam_postern to trust it, can connect. The
// ForceCommand shell's has mode 0666.
func Listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	return system.ListenUnix("unixpacket", path, mode)
}

// Serve answers questions until ctx ends, and then waits for those that it is
// working on. It closes l.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	s.refused = sshd.Refusals(s.record, s.log)
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		if err := s.refused.Close(); err != nil {
			s.log.Error("refused logins are not on the timeline", postern.LogError, err)
		}
	}()
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
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
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
	peer, err := system.PeerOf(conn)
	if err != nil || peer.UID != 0 && !s.cfg.Users {
		s.log.Warn("the PAM socket refused a process", postern.LogPID, peer.PID, postern.LogID, peer.UID)
		return
	}
	if conn.SetDeadline(time.Now().Add(s.cfg.ReadTimeout)) != nil {
		return
	}
	buf := make([]byte, questionMax+1)
	defer clear(buf)
	n, err := conn.Read(buf) // what is longer is cut, and then too long
	if err != nil {
		s.log.Warn("the PAM socket got no question", postern.LogPID, peer.PID)
		return
	}
	q, err := ParseQuestion(buf[:n])
	if err != nil {
		s.log.Warn("the PAM socket got no question", postern.LogPID, peer.PID, postern.LogError, err)
		return
	}
	if s.cfg.Users {
		if name, err := s.cfg.Account(uint32(peer.UID)); err != nil || q.Ask != AskCode || q.User != name {
			s.log.Warn("a user asked about another account", postern.LogPID, peer.PID, postern.LogID, peer.UID)
			return
		}
		q.Service = "postern-shell"
	}
	if q.Ask == NotifyAsked {
		ev := s.event(q, process.Login(peer.PID))
		free()
		s.awaitCode(ctx, conn, q, ev)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	verdict, code := s.answer(ctx, q, peer.PID)
	if conn.SetDeadline(time.Now().Add(s.cfg.ReadTimeout)) == nil {
		_, _ = conn.Write(q.answer(verdict, code)) // gone already: it denied
	}
}

// How long, and for how many at once, a code may be waited for.
const (
	askedMax  = 10 * time.Minute
	askedOnce = 1024
)

// awaitCode records on the timeline a prompt for a code that was not answered: its
// connection ends without a packet.
func (s *Server) awaitCode(ctx context.Context, conn *net.UnixConn, q Question, ev postern.Event) {
	if s.asked.Add(1) > askedOnce {
		s.log.Warn("too many prompts for a code at once: this one is not recorded if it is not answered",
			postern.LogID, q.User)
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
	s.refused.Add(ev)
}

func accountOf(uid uint32) (string, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// answer decides, and writes the timeline before access is granted. code is how
// many bytes at the end of what was typed are the code that was accepted.
func (s *Server) answer(ctx context.Context, q Question, pid int) (_ Verdict, code int) {
	start := time.Now()
	ev := s.event(q, process.Login(pid))
	var err error
	switch q.Ask {
	case AskCode:
		var proof sshd.Proof
		proof, err = s.check.CheckCode(ctx, sshd.Attempt{
			User: q.User, Service: q.Service, Address: q.Host, Code: q.Code, Event: ev,
			Password: q.Version >= codeAndPassword, Digits: q.Combined,
		})
		if err == nil {
			s.logins.accepted(ev.Links)
			return Yes, len(q.Code) - proof.Password
		}
		ev.Person = proof.Person
		if proof.Credential.ID != "" {
			ev.Links = append(ev.Links, proof.Credential)
		}
	case AskAccount:
		ev.Person, err = s.check.CheckAccount(ctx, q.User)
		if err == nil || postern.CodeOf(err) == postern.NotFound {
			return verdictOf(err), 0 // nothing happened that the timeline records
		}
	case NotifyOpened, NotifyClosed:
		ev.Person, _ = s.check.CheckAccount(ctx, cmp.Or(s.requestedBy(q), q.User))
	}
	ev.Took = time.Since(start)
	if err != nil {
		ev.Outcome, ev.Reason = outcomeOf(err), err.Error()
		s.refused.Add(ev)
		return verdictOf(err), 0
	}
	// What was decided too late is still on the timeline.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	if err := s.record.Append(ctx, ev); err != nil {
		s.log.Error("an SSH login is not on the timeline", postern.LogError, err)
		return Unavailable, 0
	}
	return Yes, 0
}

// event returns what the timeline says of a question, without its outcome.
func (s *Server) event(q Question, pid int) postern.Event {
	ev := postern.Event{
		Time:    time.Now().UTC(),
		Kind:    kindOf(q),
		Outcome: postern.OK,
		Address: sshd.Printable(q.Host),
		Object:  sshd.Printable(q.User),
		Links:   s.machine.Links(pid),
		Details: map[string]string{"service": sshd.Printable(q.Service)},
	}
	switch q.Ask {
	case AskCode:
		ev.Links = append(ev.Links, s.machine.Login(q.Nonce[:]))
		ev.Details["method"] = "code"
	case NotifyAsked:
		ev.Details["method"] = "code"
	case AskAccount:
		ev.Details["method"] = "account"
	case NotifyOpened:
		ev.Links = s.logins.of(ev.Links)
	case NotifyClosed:
		ev.Links = s.logins.of(ev.Links)
		s.logins.closed(ev.Links)
	}
	if q.TTY != "" {
		ev.Details["tty"] = sshd.Printable(q.TTY)
	}
	if by := s.requestedBy(q); by != "" {
		ev.Details["user"] = sshd.Printable(by)
	}
	return ev
}

// requestedBy returns the account of this host that asks to become another, as sudo
// and su say: "" for none. What a service says of a user on another host proves
// nothing.
func (s *Server) requestedBy(q Question) string {
	name, _ := os.Hostname()
	here := q.Host == "" || q.Host == name || sshd.OnThisHost(q.Host)
	if s.cfg.Users || !here || q.RequestedBy == q.User || strings.Contains(q.Service, "sshd") {
		return ""
	}
	return q.RequestedBy
}

func kindOf(q Question) string {
	ssh := strings.Contains(q.Service, "sshd")
	switch {
	case q.Ask == NotifyOpened && ssh:
		return postern.EventSSHOpened
	case q.Ask == NotifyOpened:
		return postern.EventPAMOpened
	case q.Ask == NotifyClosed && ssh:
		return postern.EventSSHClosed
	case q.Ask == NotifyClosed:
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
