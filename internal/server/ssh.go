package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/sshd/sshlog"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

// SSHChecker checks codes and accounts for sshd. The store's accounts say whose an account
// is.
type SSHChecker struct {
	OTP  *otp.Checker
	DB   *store.DB
	Host string // host of the accounts
}

// CheckCode checks what an account typed as a code, and uses it up.
func (c SSHChecker) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	person, err := c.DB.People().AccountPerson(ctx, a.User, c.Host)
	if err != nil {
		return sshd.Proof{}, err
	}
	proof, err := c.OTP.Check(ctx, otp.Attempt{
		User: a.User, Person: person, Code: a.Code, Address: a.Address, Service: a.Service, With: a.Event,
		Password: a.Password, Digits: a.Digits,
	})
	return sshd.Proof{Person: proof.Person, Credential: proof.Credential, Password: proof.Password}, err
}

// CheckAccount returns the name of the person whose account it is.
func (c SSHChecker) CheckAccount(ctx context.Context, user string) (string, error) {
	name, err := c.DB.People().AccountPerson(ctx, user, c.Host)
	if err != nil {
		return "", err
	}
	p, err := c.DB.People().Person(ctx, name)
	if err != nil {
		return "", err
	}
	if !p.Active() {
		return p.Name, postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	return p.Name, nil
}

// sshService answers pam_postern and the ForceCommand shell while the server runs.
type sshService struct {
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Close waits until all pending questions are answered.
func (s *sshService) Close() {
	s.stop()
	s.running.Wait()
}

// serveSSH answers pam_postern and the ForceCommand shell, on the sockets that
// systemd passed under the names "pam" and "shell", else on pamSocket and shell.sock in
// the same directory. Without a path and passed sockets it serves nothing.
func serveSSH(ctx context.Context, st *state.State, one *OneTime, pamSocket string, log *slog.Logger) (*sshService,
	error,
) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &sshService{stop: stop}
	answering := false
	for _, each := range []struct {
		name, path string
		mode       os.FileMode
		cfg        socket.Config
	}{
		{"pam", pamSocket, 0o600, socket.Config{}},
		{"shell", beside(pamSocket, "shell.sock"), 0o666, socket.Config{Users: true}},
	} {
		l, err := sshListener(each.name, each.path, each.mode)
		if err != nil {
			s.Close()
			return nil, err
		}
		if l == nil {
			continue
		}
		answering = true
		server, err := socket.NewServer(each.cfg, SSHChecker{OTP: one.Checker, DB: st.Store, Host: hostName()},
			st.Store, log)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.running.Go(func() {
			if err := server.Serve(ctx, l); err != nil {
				log.Error("sshd's questions are not answered any more", slog.Any(postern.LogError, err))
			}
		})
	}
	if answering {
		s.watchLog(ctx, st, log)
	}
	return s, nil
}

// watchLog records on the timeline the logins in sshd's log.
func (s *sshService) watchLog(ctx context.Context, st *state.State, log *slog.Logger) {
	lines := make(chan sshlog.Line)
	person := func(ctx context.Context, account string) string { return accountPerson(ctx, st, account, hostName()) }
	s.running.Go(func() {
		sshlog.Watcher{Record: st.Store, Person: person, Log: log}.Watch(ctx, lines)
	})
	s.running.Go(func() {
		last, err := SSHLog(ctx, st)
		sshlog.Follow(ctx, lines, err == nil && last.Outcome == postern.Failed, func(err error) {
			recordFollowing(ctx, st, log, err)
		})
	})
}

// accountPerson returns the person of an account on a host, "" if there is none.
func accountPerson(ctx context.Context, st *state.State, account, host string) string {
	name, err := st.Store.People().AccountPerson(ctx, account, host)
	if err != nil {
		return ""
	}
	p, err := st.Store.People().Person(ctx, name)
	if err != nil {
		return ""
	}
	return p.Name
}

// hostName returns this host's name, without its domain.
func hostName() string {
	name, _ := os.Hostname()
	name, _, _ = strings.Cut(name, ".")
	return name
}

// SSHLog returns the last event about whether this host's log of sshd is read, or the zero
// Event.
func SSHLog(ctx context.Context, st *state.State) (postern.Event, error) {
	f := timeline.Filter{Kind: postern.EventSSHLog, Limit: 100, Last: true} // other hosts' are among them
	events, err := st.Store.Timeline().Events(ctx, f)
	for _, e := range slices.Backward(events) {
		if e.Host == "" {
			return e, err
		}
	}
	return postern.Event{}, err
}

// recordFollowing records on the timeline that logins may be missing from now on, or that
// they are complete again.
func recordFollowing(ctx context.Context, st *state.State, log *slog.Logger, lost error) {
	ev := postern.Event{Time: time.Now().UTC(), Kind: postern.EventSSHLog, Outcome: postern.OK}
	if lost != nil {
		ev.Outcome, ev.Reason = postern.Failed, lost.Error()
		log.Warn("sshd's log is not followed", slog.Any(postern.LogError, lost))
	} else {
		log.Info("sshd's log is followed again")
	}
	if err := st.Store.Append(ctx, ev); err != nil && ctx.Err() == nil {
		log.Error("this is not recorded on the timeline", slog.Any(postern.LogError, err))
	}
}

// beside returns the path of a file in the directory of another, "" for "".
func beside(path, name string) string {
	if path == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(path), name)
}

// pamSocketOf returns the socket on which a server answers pam_postern: the one that was
// given, else the host's own if root serves the host's own state. So a server that is
// only tried does not replace the host's.
func pamSocketOf(given, stateDir string) string {
	if given == "" && os.Geteuid() == 0 && stateDir == "/var/lib/postern" {
		return sshd.DefaultSocket
	}
	return given
}

// sshListener returns the socket that systemd passed, or else listens on path; nil for no
// path.
func sshListener(name, path string, mode os.FileMode) (*net.UnixListener, error) {
	all := system.PassedSockets()
	i := slices.IndexFunc(all, func(s system.PassedSocket) bool { return s.Name == name })
	if i < 0 {
		if path == "" {
			return nil, nil
		}
		return socket.Listen(path, mode)
	}
	l, err := net.FileListener(all[i].File)
	if err != nil {
		return nil, fmt.Errorf("the socket named %s: %w", name, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unixpacket" {
		l.Close()
		return nil, fmt.Errorf("the socket named %s is not a Unix socket of type SOCK_SEQPACKET", name)
	}
	return u, nil
}
