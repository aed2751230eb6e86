package cli

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/server"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ssh"
)

// sshRig is a Postern state with people and tokens, for a test host's sshd to
// ask about.
type sshRig struct {
	st      *state.State
	oneTime *server.OneTime
	tokens  map[string]*otp.SoftToken
}

func newSSHRig(t testing.TB, people ...string) *sshRig {
	t.Helper()
	a := &app{out: io.Discard, err: io.Discard, state: t.TempDir()}
	st, err := a.create(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	one, err := server.NewOneTime(st, server.Mappings, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	rig := &sshRig{st: st, oneTime: one, tokens: map[string]*otp.SoftToken{}}
	for _, name := range people {
		if err := st.Store.AddPerson(context.Background(), postern.Person{Name: name}); err != nil {
			t.Fatal(err)
		}
		tok := otp.NewSoftToken()
		rig.tokens[name] = tok
		if err := one.Keys.AddKeys(context.Background(), postern.Actor{}, []*otp.Key{{PublicID: tok.PublicID, Secret: &tok.Secret, Person: name, Last: otp.Never}}, false); err != nil {
			t.Fatal(err)
		}
	}
	return rig
}

// touch returns a person's next code.
func (r *sshRig) touch(t testing.TB, person string) string {
	t.Helper()
	code, err := r.tokens[person].Touch(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return code.Modhex()
}

// serve answers on a socket until stop is called.
func (r *sshRig) serve(t testing.TB, path string, cfg socket.Config, mode os.FileMode) (stop func()) {
	t.Helper()
	s, err := socket.NewServer(cfg, server.SSHChecker{OTP: r.oneTime.Checker, DB: r.st.Store}, r.st.Store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// mute listens where the daemon should, and treats each question as do says.
func mute(t testing.TB, path string, mode os.FileMode, do func(net.Conn)) (stop func()) {
	t.Helper()
	l, err := socket.Listen(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	return muteOn(t, l, do)
}

func muteOn(t testing.TB, l net.Listener, do func(net.Conn)) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	stop = sync.OnceFunc(func() { l.Close(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// posternBinary puts the program, which this test is, into a host.
func posternBinary(t testing.TB, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "postern")
	if os.Link(self, path) == nil {
		return path
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// setupFiles returns what postern ssh config writes over Debian's stock files,
// and whatever sshd is told beside.
func setupFiles(t testing.TB, s setup.Setup, beside string) map[string]string {
	t.Helper()
	root := t.TempDir()
	stock := map[string]string{
		"/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nKbdInteractiveAuthentication no\nAcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n" + beside,
		"/etc/pam.d/sshd":      "@include common-auth\naccount required pam_nologin.so\n@include common-account\nsession required pam_loginuid.so\n",
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

// userCertificate certifies a key as the CA of a test.
func userCertificate(t testing.TB, authority ssh.Signer, key ssh.Signer, principal string) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: principal, Serial: 4711, ValidPrincipals: []string{principal},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "", "permit-X11-forwarding": ""}},
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func otpAttempt(user, code string) otp.Attempt {
	return otp.Attempt{User: user, Code: code, Service: "sshd"}
}

func readKey(t testing.TB, path string) ssh.Signer {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.ParsePrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
