// Package servertest answers pam_postern in tests, from a state with people and software
// tokens.
package servertest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/otp"
)

// SSH is a state with people, each with a software token, for the sshd of a test host.
type SSH struct {
	State   *state.State
	OneTime *server.OneTime
	Tokens  map[string]*otp.SoftToken // by person
}

// NewSSH makes a state with these people. It is closed when the test ends.
func NewSSH(t testing.TB, people ...string) *SSH {
	t.Helper()
	st, err := state.Create(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s := &SSH{State: st, Tokens: map[string]*otp.SoftToken{}}
	s.Map(t, server.Mappings)
	for _, name := range people {
		if err := st.Store.People().AddPerson(t.Context(), postern.Person{Name: name}); err != nil {
			t.Fatal(err)
		}
		token := otp.NewSoftToken()
		s.Tokens[name] = token
		key := &otp.Key{PublicID: token.PublicID, Secret: &token.Secret, Person: name, Last: otp.Never}
		if err := s.OneTime.Keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Map makes the state read this file in the place of /etc/yubikey_mappings.
func (s *SSH) Map(t testing.TB, mappings string) {
	t.Helper()
	one, err := server.NewOneTime(s.State, mappings, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	s.OneTime = one
}

// Touch returns a person's next code.
func (s *SSH) Touch(t testing.TB, person string) string {
	t.Helper()
	code, err := s.Tokens[person].Touch(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return code.Modhex()
}

// Serve answers sshd on a socket until stop is called, or the test ends.
func (s *SSH) Serve(t testing.TB, path string, cfg socket.Config, mode os.FileMode) (stop func()) {
	t.Helper()
	checker := server.SSHChecker{OTP: s.OneTime.Checker, DB: s.State.Store}
	answers, err := socket.NewServer(cfg, checker, s.State.Store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- answers.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// SSHDFiles returns the files that a setup writes over Debian's, with further lines for
// sshd_config.
func SSHDFiles(t testing.TB, s setup.Setup, beside string) map[string]string {
	t.Helper()
	root := t.TempDir()
	stock := map[string]string{
		"/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nKbdInteractiveAuthentication no\n" +
			"AcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n" + beside,
		"/etc/pam.d/sshd": "@include common-auth\naccount required pam_nologin.so\n@include common-account\n" +
			"session required pam_loginuid.so\n",
	}
	for path, content := range stock {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := s.Files(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		stock[f.Path] = string(f.Content)
	}
	return stock
}
