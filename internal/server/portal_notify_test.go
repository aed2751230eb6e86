package server

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ssh"
)

// TestEveryCredentialIsReported adds credentials of every kind as commands, imports
// and the issuing services do: without the pages of the portal.
func TestEveryCredentialIsReported(t *testing.T) {
	rig := newPortalRig(t, nil)
	rig.person(t, "dan")
	keys := rig.db.OTP()
	reported := func(words string) {
		t.Helper()
		rig.Flush()
		rig.mail.TakeAbout(t, "dan@example.com", words)
	}
	cert, err := rig.ca.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Label: "phone"})
	must(t, err)
	reported("The certificate " + cert.Serial[:12] + "… was made for the device phone.")
	_, err = rig.ca.Renew(t.Context(), cert.Serial, ca.RenewRequest{By: postern.Actor{Address: "192.0.2.7"}})
	must(t, err)
	reported("from 192.0.2.7: The certificate")

	// An SSH key is reported once, and again after its certificates were revoked.
	key := sshKey(t)
	sign := func() uint64 {
		t.Helper()
		c, err := rig.ca.SignSSHUser(t.Context(), ca.SSHUserRequest{
			Person: "dan", Key: key,
			Principals: []string{"dan", "deploy"},
		})
		must(t, err)
		return c.Serial
	}
	words := "A certificate for the SSH key " + ssh.FingerprintSHA256(key) +
		" was made. It opens these accounts: dan deploy."
	first := sign()
	reported(words)
	second := sign()
	must(t, rig.ca.RevokeSSH(t.Context(), first, postern.Actor{}))
	must(t, rig.ca.RevokeSSH(t.Context(), second, postern.Actor{}))
	sign()
	reported(words)

	id := otp.NewPublicID()
	// assigned to no person
	must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{{PublicID: id, Last: otp.Never}}, false))
	must(t, keys.AssignKey(t.Context(), id, "dan"))
	reported("The YubiKey " + id + " was added.")
	must(t, keys.SetKeyStatus(t.Context(), id, postern.CredentialDisabled))
	must(t, keys.SetKeyStatus(t.Context(), id, postern.CredentialActive))
	reported("The YubiKey " + id + " was enabled again.")
	must(t, keys.AddKeys(t.Context(), postern.Actor{},
		[]*otp.Key{{PublicID: id, Person: "dan", Label: "blue", Last: otp.Never}}, true))
	reported("The YubiKey blue (" + id + ") was given another secret.")
	var many []*otp.Key
	for range 30 {
		many = append(many, &otp.Key{PublicID: otp.NewPublicID(), Person: "dan", Last: otp.Never})
	}
	must(t, keys.Import(t.Context(), &otp.Import{Keys: many}, false))
	reported("and 10 more, at " + rig.url + "/events")
	must(t, keys.AddOATH(t.Context(), postern.Actor{}, otp.NewOATH(postern.HOTP, "dan", "fob")))
	reported("The code generator fob was added.")
	must(t, keys.SetBackupCodes(t.Context(), postern.Actor{}, "dan", [][32]byte{{1}}))
	reported("New backup codes")
	external := acme.NewExternalKey("dan", "www", time.Now())
	must(t, rig.db.ACME().AddExternalKey(t.Context(), postern.Actor{}, external,
		acme.KeyEvent("dan", external.ID, "www", postern.ACMEKeyMade)))
	reported("The ACME key www (" + external.ID[:12])
	must(t, rig.db.ACME().EnableExternalKey(t.Context(), postern.Actor{}, "dan", external.ID,
		acme.KeyEvent("dan", external.ID, "", postern.ACMEKeyEnabled)))
	reported("was enabled again, with its account.")

	// What grants no access is not reported, nor is what was reported already.
	_, err = rig.ca.IssueServer(t.Context(), ca.ServerRequest{
		Names: []string{"www.example"},
		By:    postern.Actor{Person: "dan"},
	})
	must(t, err)
	must(t, keys.LabelKey(t.Context(), id, "red"))
	rig.person(t, "eve")
	_, err = rig.ca.IssueClient(t.Context(), ca.ClientRequest{Person: "eve"})
	must(t, err)
	rig.Flush()
	rig.mail.TakeAbout(t, "eve@example.com", "The certificate ") // anything else came before
	if left := rig.mail.Mails(); len(left) != 0 {
		t.Errorf("%d messages too many: %v", len(left), left)
	}
}

// TestOneServerNotifies has many servers notify people of the same events.
func TestOneServerNotifies(t *testing.T) {
	rig := newPortalRig(t, nil)
	s := rig.db.Portal()
	kinds := []string{postern.EventOTPKeyAdded}
	next := func() portal.Unnotified {
		u, err := s.Unnotified(t.Context(), kinds, 10)
		must(t, err)
		return u
	}
	keys := rig.db.OTP() // assigned to no person: the running portal sends no mail about them
	for range 3 {
		must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{{PublicID: otp.NewPublicID(), Last: otp.Never}},
			false))
	}
	u := next()
	for ; len(u.Events) == 0; u = next() { // the running portal was quicker
		must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{{PublicID: otp.NewPublicID(), Last: otp.Never}},
			false))
	}
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			m := portal.Message{
				ID: fmt.Sprint("m", i), To: "dan@example.com", Subject: "News", Text: "news\n",
				Expires: time.Now().Add(time.Hour),
			}
			if err := s.Notify(t.Context(), u, []portal.Message{m}); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	rig.Flush()
	must(t, rig.db.People().AddPerson(t.Context(), postern.Person{Name: "eve", Email: "eve@example.com"}))
	_, err := rig.ca.IssueClient(t.Context(), ca.ClientRequest{Person: "eve"})
	must(t, err)
	rig.Flush()
	rig.mail.TakeAbout(t, "eve@example.com", "The certificate ")
	if n := len(rig.mail.Mails()); n > 1 {
		t.Errorf("%d servers sent a message", n)
	}
	must(t, s.StartNotifying(t.Context())) // as at each start: the mark stays
	if again := next(); again.From < u.Next {
		t.Errorf("the mark is at %d, and was at %d", again.From, u.Next)
	}
}

// TestOldEventsAreNotReported has the portal read events long after they happened.
func TestOldEventsAreNotReported(t *testing.T) {
	rig := newPortalRig(t, nil)
	rig.person(t, "dan")
	old := postern.Event{
		Kind: postern.EventOTPKeyAdded, Person: "dan", Object: "cccccccccccc",
		Time: time.Now().Add(-49 * time.Hour),
	}
	recent := old
	recent.Object, recent.Time = "dddddddddddd", time.Now().Add(-47*time.Hour)
	must(t, rig.db.Append(t.Context(), old, recent))
	rig.Flush()
	if m := rig.mail.Take(t, "dan@example.com"); strings.Contains(m.Text, old.Object) ||
		!strings.Contains(m.Text, recent.Object) {
		t.Errorf("the message is:\n%s", m.Text)
	}
}
