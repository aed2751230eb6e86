package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/sshd"
	"github.com/postern-project/postern/store"
)

// pamChecker lets people prove themselves to sshd with what the OTP room and
// the store know of them. An account answers to the person of its name.
type pamChecker struct {
	otp *otp.Checker
	db  *store.DB
}

func (c pamChecker) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	proof, err := c.otp.Check(ctx, otp.Attempt{User: a.User, Code: a.Code, Address: a.Address, Service: a.Service})
	return sshd.Proof{Person: proof.Person, Credential: proof.Credential}, err
}

func (c pamChecker) CheckAccount(ctx context.Context, user string) (string, error) {
	p, err := c.db.Person(ctx, user)
	if err != nil {
		return "", err
	}
	if !p.Active() {
		return p.Name, postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	return p.Name, nil
}

// newPAMServer returns what answers pam_postern.
func newPAMServer(st *state, check *otp.Checker, log *slog.Logger) (*sshd.Server, error) {
	return sshd.NewServer(sshd.Config{}, pamChecker{otp: check, db: st.Store}, st.Store, log)
}

// pamListener returns the socket that pam_postern asks on: the one that systemd
// opened as root under the name "pam", or else, for root, one of our own. For
// anybody else it is nil: pam_postern would not trust it.
func pamListener(path string, mode os.FileMode) (*net.UnixListener, error) {
	if f := inheritedSocket("pam"); f != nil {
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		u, ok := l.(*net.UnixListener)
		if !ok || u.Addr().Network() != "unixpacket" {
			l.Close()
			return nil, errors.New("the socket named pam is no Unix socket of sequential packets")
		}
		return u, nil
	}
	if os.Geteuid() != 0 {
		return nil, nil
	}
	return sshd.Listen(path, mode)
}

// inheritedSocket returns the socket that systemd passed under a name, or nil
// (sd_listen_fds(3)).
func inheritedSocket(name string) *os.File {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	for i, n := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		if n == name {
			return os.NewFile(uintptr(3+i), name)
		}
	}
	return nil
}
