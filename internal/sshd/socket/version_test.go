package socket

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
)

// behind is a Checker whose code is behind a password of six letters.
type behind struct {
	*codes
	asked []sshd.Attempt
}

func (b *behind) CheckCode(_ context.Context, a sshd.Attempt) (sshd.Proof, error) {
	b.asked = append(b.asked, a)
	return sshd.Proof{Person: a.User, Password: len("s3cret")}, nil
}

// TestVersionsOfTheProtocol asks as each pam_postern does.
func TestVersionsOfTheProtocol(t *testing.T) {
	posterntest.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "pam.sock")
	check := &behind{codes: newCodes()}
	startServer(t, path, Config{}, check, new(events))
	for _, c := range []struct {
		name     string
		question Question
		answer   string // after the nonce
		attempt  sshd.Attempt
	}{
		{"1: the code alone", Question{Version: 1}, "\x01", sshd.Attempt{}},
		{"2: where the code is", Question{Version: 2}, "\x01\x2c", sshd.Attempt{Password: true}},
		{
			"2: digits, too",
			Question{Version: 2, Combined: true},
			"\x01\x2c",
			sshd.Attempt{Password: true, Digits: true},
		},
		{"3: who asks", Question{Version: 3, RequestedBy: "carol"}, "\x01\x2c", sshd.Attempt{Password: true}},
		{"4", Question{Version: 4}, "", sshd.Attempt{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			check.asked = nil
			q := c.question
			q.Ask, q.User, q.Code = AskCode, "alice", "s3cret"+code1
			conn, err := net.Dial("unixpacket", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(q.Append(nil)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 64)
			n, _ := conn.Read(b)
			_, answer, _ := strings.Cut(string(b[:n]), string(q.Nonce[:]))
			if answer != c.answer {
				t.Errorf("the answer ends with %q, want %q", answer, c.answer)
			}
			if c.answer == "" {
				return
			}
			if a := check.asked[0]; a.Password != c.attempt.Password || a.Digits != c.attempt.Digits ||
				a.Code != q.Code {
				t.Errorf("asked %+v", a)
			}
		})
	}
	_, err := ParseQuestion(Question{Version: 4, Ask: AskCode, User: "alice"}.Append(nil))
	if err == nil || !strings.Contains(err.Error(), "install the module that came with the server") {
		t.Errorf("an unknown version is refused with %v", err)
	}
}

// TestWhoAsksToBecomeAnother accepts what a service says about accounts of this host alone.
func TestWhoAsksToBecomeAnother(t *testing.T) {
	posterntest.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "pam.sock")
	var recorded events
	startServer(t, path, Config{}, newCodes(), &recorded)
	for _, c := range []struct {
		q          Question
		user, from string
	}{
		{Question{Service: "sudo", User: "root", RequestedBy: "alice"}, "alice", "alice"},
		{Question{Service: "su", User: "root", RequestedBy: "alice", Host: "localhost"}, "alice", "alice"},
		{Question{Service: "sudo", User: "alice", RequestedBy: "alice"}, "", "alice"},
		{Question{Service: "rlogin", User: "bob", RequestedBy: "alice", Host: "192.0.2.9"}, "", "bob"},
		{Question{Service: "sshd", User: "bob", RequestedBy: "alice"}, "", "bob"},
	} {
		c.q.Version, c.q.Ask = requestingUser, NotifyOpened
		conn, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(c.q.Append(nil)); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Read(make([]byte, 64))
		conn.Close()
		all := recorded.list()
		if ev := all[len(all)-1]; ev.Details["user"] != c.user || ev.Person != c.from || ev.Object != c.q.User {
			t.Errorf("%+v is recorded as %+v", c.q, ev)
		}
	}
}
