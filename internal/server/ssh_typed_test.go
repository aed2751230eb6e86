package server

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

// TestPasswordAndCodeInOneField logs in at a real sshd with the password and a
// code of keys whose public IDs have other lengths than the usual one.
func TestPasswordAndCodeInOneField(t *testing.T) {
	posterntest.NeedRoot(t)
	module := posterntest.PAMModule(t)
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Config: "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\n" +
			"AuthenticationMethods keyboard-interactive:pam\n",
		Accounts: []posterntest.Account{{Name: "alice", Password: "s3cret"}},
		Files: map[string]string{"/etc/pam.d/sshd": "auth required " + module +
			" socket=@DIR@/pam.sock timeout=5 combined\n" +
			"auth required pam_unix.so use_first_pass\naccount required pam_unix.so\nsession required pam_unix.so\n"},
	})
	db := storetest.Open(t)
	keys := db.OTP()
	check := otp.NewChecker(otp.CheckerConfig{}, keys, keys, db.People(), nil, db)
	t.Cleanup(func() { check.Close() })
	s, err := socket.NewServer(socket.Config{}, SSHChecker{OTP: check, DB: db}, db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(filepath.Join(h.Dir, "pam.sock"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := db.People().AddPerson(ctx, postern.Person{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	for _, letters := range []int{2, 8, 12, 13, 16} {
		tok := otp.NewSoftToken()
		tok.PublicID = strings.Repeat("vd", 8)[:letters]
		key := &otp.Key{PublicID: tok.PublicID, Secret: &tok.Secret, Person: "alice", Last: otp.Never}
		if err := keys.AddKeys(ctx, postern.Actor{}, []*otp.Key{key}, false); err != nil {
			t.Fatal(err)
		}
		for name, typed := range map[string]func(code string) string{
			"as it is":          func(code string) string { return "s3cret" + code },
			"with a blank":      func(code string) string { return "s3cret" + code + " " },
			"a wrong password":  func(code string) string { return "s3crex" + code },
			"without password":  func(code string) string { return code },
			"the password only": func(string) string { return "s3cret" },
		} {
			t.Run(fmt.Sprintf("ID of %d, %s", letters, name), func(t *testing.T) {
				code, err := tok.Touch(time.Now())
				if err != nil {
					t.Fatal(err)
				}
				c, err := h.Connect("alice", posterntest.Answers(typed(code.Modhex())))
				if err == nil {
					c.Close()
				}
				if ok := name == "as it is" || name == "with a blank"; ok != (err == nil) {
					t.Errorf("logging in: %v\n%s", err, h.Log())
				}
			})
		}
	}
}
