package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/posterntest"
	"github.com/postern-project/postern/sshd"
	"github.com/postern-project/postern/store"
	"golang.org/x/crypto/ssh"
)

const keyThenCode = "publickey,keyboard-interactive:pam"

// sshChecker lets the OTP room decide.
type sshChecker struct {
	otp *otp.Checker
	db  *store.DB
}

func (c sshChecker) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	p, err := c.otp.Check(ctx, otp.Attempt{User: a.User, Code: a.Code, Address: a.Address, Service: a.Service})
	return sshd.Proof{Person: p.Person, Credential: p.Credential}, err
}

func (c sshChecker) CheckAccount(ctx context.Context, user string) (string, error) {
	p, err := c.db.Person(ctx, user)
	return p.Name, err
}

// sshHost is a host whose logins ask for what methods says, and whose PAM stack
// has one module in auth and account.
func sshHost(b *testing.B, methods, module string, people int) *posterntest.Host {
	b.Helper()
	var accounts []posterntest.Account
	for i := range people {
		accounts = append(accounts, posterntest.Account{Name: fmt.Sprintf("user%d", i)})
	}
	return posterntest.StartHost(b, posterntest.HostConfig{
		Config: "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\nAuthenticationMethods " + methods + "\n" +
			"MaxStartups 1000\nLoginGraceTime 120\n",
		Accounts: accounts,
		Files:    map[string]string{"/etc/pam.d/sshd": "auth required " + module + "\naccount required " + module + "\nsession required pam_loginuid.so\n"},
	})
}

// sshDaemon serves pam_postern for a host, over a new state of the people
// user0, user1 and so on, and returns what touches their keys.
func sshDaemon(b *testing.B, h *posterntest.Host, people int) func(i int) string {
	b.Helper()
	ctx := context.Background()
	db, err := store.Open(ctx, store.Config{URL: filepath.Join(b.TempDir(), "postern.db"), Key: [32]byte{1}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	keys := store.NewOTP(db)
	var tokens []*otp.SoftToken
	for i := range people {
		name := fmt.Sprintf("user%d", i)
		if err := db.AddPerson(ctx, postern.Person{Name: name}); err != nil {
			b.Fatal(err)
		}
		tok := otp.NewSoftToken()
		if err := keys.AddKeys(ctx, []*otp.Key{{PublicID: tok.PublicID, Secret: &tok.Secret, Person: name, Last: otp.Never}}, false); err != nil {
			b.Fatal(err)
		}
		tokens = append(tokens, tok)
	}
	check := otp.NewChecker(otp.CheckerConfig{}, keys, keys, db, nil, db)
	b.Cleanup(func() { check.Close() })
	s, err := sshd.NewServer(sshd.Config{}, sshChecker{check, db}, db, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	l, err := sshd.Listen(filepath.Join(h.Dir, "pam.sock"), 0o600)
	if err != nil {
		b.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(serving, l) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return func(i int) string {
		code, err := tokens[i].Touch(time.Now())
		if err != nil {
			b.Fatal(err)
		}
		return code.Modhex()
	}
}

// sshLogin logs in and out, and returns how long it took to be in.
func sshLogin(h *posterntest.Host, user, code string) (time.Duration, error) {
	start := time.Now()
	c, err := h.Connect(user, posterntest.Answers(code), ssh.PublicKeys(h.Key))
	took := time.Since(start)
	if err == nil {
		c.Close()
	}
	return took, err
}

// BenchmarkSSHLogin measures what Postern adds to a login, with two durable
// commits, over the same login with a prompt that nobody checks, and over one
// by the key alone. They alternate, so that all see the same machine.
func BenchmarkSSHLogin(b *testing.B) {
	prompt := filepath.Join(b.TempDir(), "pam_prompt.so")
	if out, err := exec.Command("cc", "-O2", "-fPIC", "-shared", "-o", prompt, "testdata/pam_prompt.c", "-lpam").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	module := posterntest.PAMModule(b)
	key := sshHost(b, "publickey", "pam_permit.so", 1)
	asked := sshHost(b, keyThenCode, prompt, 1)
	checked := sshHost(b, keyThenCode, module+" socket=@DIR@/pam.sock", 1)
	touch := sshDaemon(b, checked, 1)
	took := map[*posterntest.Host][]time.Duration{}
	for b.Loop() {
		for _, h := range []*posterntest.Host{key, asked, checked} {
			code := "x"
			if h == checked {
				code = touch(0)
			}
			t, err := sshLogin(h, "user0", code)
			if err != nil {
				b.Fatal(err)
			}
			took[h] = append(took[h], t)
		}
	}
	median := func(h *posterntest.Host) float64 {
		slices.Sort(took[h])
		return float64(took[h][len(took[h])/2].Microseconds()) / 1000
	}
	b.ReportMetric(median(key), "ms/key-alone")
	b.ReportMetric(median(asked), "ms/unchecked-prompt")
	b.ReportMetric(median(checked), "ms/Postern")
	b.ReportMetric(median(checked)-median(asked), "ms-added")
}

// BenchmarkSSH200Logins has 200 people log in at once.
func BenchmarkSSH200Logins(b *testing.B) {
	const people = 200
	module := posterntest.PAMModule(b)
	h := sshHost(b, keyThenCode, module+" socket=@DIR@/pam.sock timeout=60", people)
	touch := sshDaemon(b, h, people)
	for b.Loop() {
		var wg sync.WaitGroup
		took, errs := make([]time.Duration, people), make([]error, people)
		for i := range people {
			code := touch(i)
			wg.Go(func() { took[i], errs[i] = sshLogin(h, fmt.Sprintf("user%d", i), code) })
		}
		wg.Wait()
		lost := 0
		for _, err := range errs {
			if err != nil {
				lost++
				b.Log(err)
			}
		}
		b.ReportMetric(float64(lost), "lost")
		b.ReportMetric(slices.Max(took).Seconds(), "s/slowest")
		if lost > 0 {
			b.Fail()
		}
	}
}

// BenchmarkSSHQuestion measures the daemon's part alone: pam_postern's question,
// the code used up and the timeline written, each durable, and the answer.
func BenchmarkSSHQuestion(b *testing.B) {
	h := sshHost(b, keyThenCode, "pam_permit.so", 1)
	touch := sshDaemon(b, h, 1)
	socket := filepath.Join(h.Dir, "pam.sock")
	for b.Loop() {
		v, err := sshd.AskDaemon(context.Background(), socket, sshd.Question{Ask: sshd.AskCode, Service: "sshd", User: "user0", Code: touch(0)})
		if err != nil || v != sshd.Yes {
			b.Fatal(v, err)
		}
	}
}
