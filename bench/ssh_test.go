package bench

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ssh"
)

const keyThenCode = "publickey,keyboard-interactive:pam"

// sshChecker checks codes by package otp.
type sshChecker struct {
	otp *otp.Checker
	db  *store.DB
}

func (c sshChecker) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	p, err := c.otp.Check(ctx, otp.Attempt{
		User: a.User, Code: a.Code, Address: a.Address, Service: a.Service,
		With: a.Event,
	})
	return sshd.Proof{Person: p.Person, Credential: p.Credential}, err
}

func (c sshChecker) CheckAccount(ctx context.Context, user string) (string, error) {
	p, err := c.db.People().Person(ctx, user)
	return p.Name, err
}

// sshHost is a host whose logins ask for what methods says, with sshd's PAM stack.
func sshHost(b *testing.B, methods, stack string, people int) *posterntest.Host {
	b.Helper()
	var accounts []posterntest.Account
	for i := range people {
		accounts = append(accounts, posterntest.Account{Name: fmt.Sprintf("user%d", i)})
	}
	return posterntest.StartHost(b, posterntest.HostConfig{
		Config: "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\nMaxStartups 1000\n" +
			"LoginGraceTime 120\n" +
			"AuthenticationMethods " + methods + "\n",
		Accounts: accounts,
		Files:    map[string]string{"/etc/pam.d/sshd": stack},
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
	keys := db.OTP()
	var tokens []*otp.SoftToken
	for i := range people {
		name := fmt.Sprintf("user%d", i)
		if err := db.People().AddPerson(ctx, postern.Person{Name: name}); err != nil {
			b.Fatal(err)
		}
		tok := otp.NewSoftToken()
		if err := keys.AddKeys(ctx, postern.Actor{}, []*otp.Key{{
			PublicID: tok.PublicID, Secret: &tok.Secret,
			Person: name, Last: otp.Never,
		}}, false); err != nil {
			b.Fatal(err)
		}
		tokens = append(tokens, tok)
	}
	check := otp.NewChecker(otp.CheckerConfig{}, keys, keys, db.People(), nil, db)
	b.Cleanup(func() { check.Close() })
	s, err := socket.NewServer(socket.Config{}, sshChecker{check, db}, db, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	l, err := socket.Listen(filepath.Join(h.Dir, "pam.sock"), 0o600)
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

// sshLogin logs in, opens a session and logs out, and returns how long it took
// until the session was open.
func sshLogin(h *posterntest.Host, user, code string, keys ...ssh.Signer) (time.Duration, error) {
	start := time.Now()
	c, err := h.Connect(user, posterntest.Answers(code), ssh.PublicKeys(keys...))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_, err = c.NewSession()
	return time.Since(start), err
}

// sshWay is a way to log in to the host of BenchmarkSSHLogin.
type sshWay struct {
	name string
	host *posterntest.Host // at the port where sshd asks for what the way needs
	keys []ssh.Signer      // what the client offers
	pam  string            // sshd's PAM stack
	took []float64         // milliseconds, by round
}

// BenchmarkSSHLogin measures what PAM and Postern add to a login with a public
// key, until its first session is open: three questions of pam_postern, with
// two durable commits, and its word that it asks for a code.
//
// sshd holds back its answer to each request for authentication, for 5 to 9.2 ms
// that depend on the user and on a secret that it makes when it starts
// (user_specific_delay in OpenSSH's auth2.c): any second factor costs this once
// more, checked or not. So all ways use one sshd and alternate with the same users, and
// the result is the difference from a login with as many requests: by a key, where the
// client offers another key first.
func BenchmarkSSHLogin(b *testing.B) {
	const rounds, people = 300, 25
	prompt := filepath.Join(b.TempDir(), "pam_prompt.so")
	if out, err := exec.Command("cc", "-O2", "-fPIC", "-shared", "-o", prompt, "testdata/pam_prompt.c",
		"-lpam").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	module := posterntest.PAMModule(b)
	h := sshHost(b,
		keyThenCode+
			"\nListenAddress 127.0.0.1:22\nListenAddress 127.0.0.1:23\nMatch LocalPort 23\n"+
			"AuthenticationMethods publickey\nMatch all",
		"auth include @DIR@/stack\naccount include @DIR@/stack\nsession include @DIR@/stack\n", people)
	// A delayed ACK of the client would hide what takes less than its 40 ms.
	if out, err := h.Command("ip", "route", "replace", "table", "local", "local", "127.0.0.1", "dev", "lo", "quickack",
		"1").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	touch := sshDaemon(b, h, people)
	keyOnly := *h
	keyOnly.Port = 23
	other, _ := posterntest.NewSSHKey(b, b.TempDir(), "other")
	mine := []ssh.Signer{h.Key}
	const account, session = "account required pam_permit.so\n", "session required pam_loginuid.so\n"
	ours := module + " socket=" + filepath.Join(h.Dir, "pam.sock")
	ways := []*sshWay{
		{name: "key-alone", host: &keyOnly, keys: mine, pam: account + session},
		{name: "key-after-another", host: &keyOnly, keys: []ssh.Signer{other, h.Key}, pam: account + session},
		{name: "unchecked-prompt", host: h, keys: mine, pam: "auth required " + prompt + "\n" + account + session},
		{name: "Postern", host: h, keys: mine, pam: "auth requisite " + ours + "\naccount required " + ours + "\n" +
			session +
			"session optional " + ours + " timeout=2\n"},
	}
	order := slices.Clone(ways)
	for b.Loop() {
		for round := range rounds {
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, w := range order {
				h.Write(b, "stack", w.pam)
				code := touch(round % people)
				h.Idle(b)
				t, err := sshLogin(w.host, fmt.Sprintf("user%d", round%people), code, w.keys...)
				if err != nil {
					b.Fatalf("%s: %v\n%s", w.name, err, h.Log())
				}
				w.took = append(w.took, float64(t.Microseconds())/1000)
			}
		}
	}
	reportLogins(b, ways)
}

// reportLogins reports how long each way took, and by how much the last took
// longer than each other in the same round: medians, with quartiles in the log.
func reportLogins(b *testing.B, ways []*sshWay) {
	b.Helper()
	last := ways[len(ways)-1]
	for _, w := range ways {
		q := quartiles(w.took)
		b.ReportMetric(q[1], "ms/"+w.name)
		b.Logf("%-18s %6.2f ms (%.2f to %.2f)", w.name, q[1], q[0], q[2])
		if w == last {
			continue
		}
		more := make([]float64, len(w.took))
		for i := range more {
			more[i] = last.took[i] - w.took[i]
		}
		q = quartiles(more)
		b.ReportMetric(q[1], "ms-over-"+w.name)
		b.Logf("%18s %6.2f ms (%.2f to %.2f) more with %s", "", q[1], q[0], q[2], last.name)
	}
}

// quartiles returns the first, second and third quartile.
func quartiles(all []float64) [3]float64 {
	all = slices.Sorted(slices.Values(all))
	return [3]float64{all[len(all)/4], all[len(all)/2], all[len(all)*3/4]}
}

// BenchmarkSSH200Logins has 200 people log in at once.
func BenchmarkSSH200Logins(b *testing.B) {
	const people = 200
	module := posterntest.PAMModule(b) + " socket=@DIR@/pam.sock timeout=60"
	h := sshHost(b, keyThenCode, "auth required "+module+"\naccount required "+module+
		"\nsession required pam_loginuid.so\n", people)
	touch := sshDaemon(b, h, people)
	for b.Loop() {
		var wg sync.WaitGroup
		took, errs := make([]time.Duration, people), make([]error, people)
		for i := range people {
			code := touch(i)
			wg.Go(func() { took[i], errs[i] = sshLogin(h, fmt.Sprintf("user%d", i), code, h.Key) })
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
	h := sshHost(b, keyThenCode, "auth required pam_permit.so\n", 1)
	touch := sshDaemon(b, h, 1)
	path := filepath.Join(h.Dir, "pam.sock")
	for b.Loop() {
		v, err := socket.AskDaemon(context.Background(), path,
			socket.Question{Ask: socket.AskCode, Service: "sshd", User: "user0", Code: touch(0)})
		if err != nil || v != socket.Yes {
			b.Fatal(v, err)
		}
	}
}
