package socket

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
)

// codes is a Checker over a list of codes, each good once. The account "bare"
// has no factor; the account "gone" is suspended; any other is its own person.
type codes struct {
	mu     sync.Mutex
	left   map[string]bool
	record sshd.Recorder // the server's
}

func newCodes(good ...string) *codes {
	c := &codes{left: map[string]bool{}}
	for _, code := range good {
		c.left[code] = true
	}
	return c
}

func (c *codes) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	if a.User == "bare" {
		return sshd.Proof{}, postern.Errorf(postern.NotFound, "no factor")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	proof := sshd.Proof{Person: a.User, Credential: postern.Link{Kind: string(postern.YubiKey), ID: "vvccccbdefgh"}}
	fresh, known := c.left[a.Code]
	switch {
	case !known:
		return sshd.Proof{Person: a.User}, postern.Errorf(postern.Denied, "wrong code")
	case !fresh:
		return proof, postern.Errorf(postern.Denied, "replayed code")
	}
	c.left[a.Code] = false
	a.Event.Person, a.Event.Links = proof.Person, append(a.Event.Links, proof.Credential)
	return proof, c.record.Append(ctx, a.Event)
}

func (c *codes) CheckAccount(_ context.Context, user string) (string, error) {
	switch user {
	case "gone":
		return user, postern.Errorf(postern.Denied, "suspended")
	case "bare":
		return "", postern.Errorf(postern.NotFound, "no person has it")
	}
	return user, nil
}

// events is a Recorder that remembers.
type events struct {
	mu  sync.Mutex
	all []postern.Event
}

func (e *events) Append(_ context.Context, events ...postern.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, events...)
	return nil
}

func (e *events) list() []postern.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]postern.Event(nil), e.all...)
}

// startServer serves pam_postern on path until the test ends.
func startServer(t testing.TB, path string, cfg Config, check sshd.Checker, record sshd.Recorder) *Server {
	t.Helper()
	if c, ok := check.(*codes); ok {
		c.record = record
	}
	s, err := NewServer(cfg, check, record, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

const (
	code1 = "vvccccbdefghcbdefghijklnrtuvcbdefghijklnrtuv"
	code2 = "vvccccbdefghdbdefghijklnrtuvcbdefghijklnrtuv"
)

const keyAndCode = `
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication yes
AuthenticationMethods publickey,keyboard-interactive:pam
Subsystem sftp internal-sftp
`

const keyAndCodePAM = `
auth required @MODULE@ socket=@DIR@/pam.sock timeout=5
account required @MODULE@ socket=@DIR@/pam.sock
account required pam_unix.so
session required pam_loginuid.so
session optional @MODULE@ socket=@DIR@/pam.sock
`

// pamFile puts the module's path into a PAM file.
func pamFile(module, text string) string { return strings.ReplaceAll(text, "@MODULE@", module) }

func TestKeyAndCodeLetIn(t *testing.T) {
	posterntest.NeedRoot(t)
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Config:   keyAndCode,
		Accounts: []posterntest.Account{{Name: "alice"}, {Name: "gone"}},
		Files:    map[string]string{"/etc/pam.d/sshd": pamFile(posterntest.PAMModule(t), keyAndCodePAM)},
	})
	var log events
	startServer(t, filepath.Join(h.Dir, "pam.sock"), Config{}, newCodes(code1, code2), &log)

	if c, err := h.Connect("alice", nil); err == nil {
		c.Close()
		t.Error("the key alone opened a session")
	}
	if c, err := h.Connect("alice", posterntest.Answers("wrong")); err == nil {
		c.Close()
		t.Error("a wrong code opened a session")
	}
	c, err := h.Connect("alice", posterntest.Answers(code1))
	if err != nil {
		t.Fatalf("key and code: %v\n%s", err, h.Log())
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Output("id -un; cat /proc/self/sessionid")
	if err != nil {
		t.Fatal(err)
	}
	name, session, _ := strings.Cut(string(out), "\n")
	if name != "alice" {
		t.Errorf("logged in as %q", name)
	}
	c.Close()
	if c, err := h.Connect("alice", posterntest.Answers(code1)); err == nil {
		c.Close()
		t.Error("a replayed code opened a session")
	}
	if c, err := h.Connect("gone", posterntest.Answers(code2)); err == nil {
		c.Close()
		t.Error("a suspended person was granted access")
	}
	want := []string{
		"ssh.auth refused wrong code",
		"ssh.auth ok",
		"ssh.session.opened ok",
		"ssh.session.closed ok",
		"ssh.auth refused replayed code",
		"ssh.auth ok",
		"ssh.auth refused suspended",
	}
	for len(log.list()) < len(want) { // an entry may follow the answer
		posterntest.Pause(t)
	}
	var got []string
	for _, ev := range log.list() {
		got = append(got, strings.TrimSpace(strings.Join([]string{ev.Kind, string(ev.Outcome), ev.Reason}, " ")))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the timeline says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// A client that disconnects when it is asked for a code.
	if c, err := h.Connect("alice", func(string, string, []string, []bool) ([]string, error) {
		return nil, errors.New("hang up")
	}); err == nil {
		c.Close()
		t.Error("no code opened a session")
	}
	for len(log.list()) == len(want) {
		posterntest.Pause(t)
	}
	if ev := log.list()[len(want)]; ev.Outcome != postern.Refused || ev.Reason != "no code was given" ||
		ev.Person != "alice" || ev.Address != "127.0.0.1" {
		t.Errorf("a disconnection is recorded as %+v", ev)
	}
	accepted, opened := log.list()[1], log.list()[2]
	if !slices.Contains(opened.Links, link(accepted, postern.LinkProcess)) {
		t.Error("the session is not joined to the code that opened it")
	}
	if id := link(opened, postern.LinkSession).ID; !strings.HasSuffix(id, "/"+strings.TrimSpace(session)) {
		t.Errorf("audit session %s, the shell says %s", id, session)
	}
	if accepted.Person != "alice" || accepted.Address != "127.0.0.1" ||
		link(accepted, string(postern.YubiKey)).ID != "vvccccbdefgh" {
		t.Errorf("the person, the address or the credential is missing: %+v", accepted)
	}
}

func link(ev postern.Event, kind string) postern.Link {
	for _, l := range ev.Links {
		if l.Kind == kind {
			return l
		}
	}
	return postern.Link{}
}
