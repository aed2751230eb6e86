package server

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestOpenSessions writes sessions of two hosts, and asks who is in.
func TestOpenSessions(t *testing.T) {
	db := storetest.Open(t)
	entry := func(kind, host, boot string, pid int, person string, links ...postern.Link) {
		t.Helper()
		e := postern.Event{
			Time: time.Now(), Kind: kind, Outcome: postern.OK, Person: person, Host: host, Object: person + "-account",
			Details: map[string]string{"service": "sshd"}, Links: links,
		}
		if pid > 0 {
			e.Links = append(e.Links, postern.Link{
				Kind: postern.LinkProcess, ID: fmt.Sprintf("%s/%s/%d/1", host, boot, pid),
			})
		}
		if err := db.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	login := postern.Link{Kind: postern.LinkLogin, ID: "hv1/aa"}
	key := postern.Link{Kind: string(postern.YubiKey), ID: "vvccccbdefgh"}
	entry(postern.EventSSHOpened, "hv1", "b1", 1, "gone") // the host has started again since
	entry(postern.EventSSHAuth, "", "", 0, "alice", login, key)
	entry(postern.EventSSHOpened, "hv1", "b2", 1, "alice", login)
	entry(postern.EventSSHOpened, "hv1", "b2", 2, "bob")
	entry(postern.EventPAMOpened, "hv1", "b2", 3, "alice")
	entry(postern.EventSSHOpened, "hv2", "b1", 2, "bob")
	entry(postern.EventSSHClosed, "hv1", "b2", 2, "bob")
	entry(postern.EventSSHClosed, "hv2", "b1", 1, "bob") // of a session that was opened long ago
	hv2 := host.Invitation{Host: postern.Host{Name: "hv2"}, Hash: []byte("h"), Expires: db.Now().Add(time.Hour)}
	if err := db.Hosts().AddHosts(t.Context(), postern.Actor{}, []host.Invitation{hv2}, false,
		postern.Event{}); err != nil {
		t.Fatal(err)
	}
	ask := openSessions(db) // which remembers
	open := func() (got []string) {
		t.Helper()
		list, err := ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			got = append(got, fmt.Sprint(s.Person, " ", s.Account, " ", s.Host, " ", s.Known, " ", s.With,
				map[bool]string{true: " late"}[s.Late]))
		}
		return got
	}
	got := open()
	want := []string{
		"alice alice-account hv1 exact [yubikey=vvccccbdefgh]", "alice alice-account hv1 guess []",
		"bob bob-account hv2 guess [] late", // it has not reported yet
	}
	if !slices.Equal(got, want) {
		t.Errorf("open are %q, want %q", got, want)
	}
	entry(postern.EventSSHClosed, "hv1", "b2", 1, "alice")
	entry(postern.EventSSHOpened, "hv2", "b2", 1, "bob") // which has started again
	want = []string{"alice alice-account hv1 guess []", "bob bob-account hv2 guess [] late"}
	if got := open(); !slices.Equal(got, want) {
		t.Errorf("open are %q later, want %q", got, want)
	}
	entry(postern.EventPAMClosed, "hv1", "b2", 3, "alice")
	if got := open(); !slices.Equal(got, want[1:]) {
		t.Errorf("open are %q at last, want %q", got, want[1:])
	}
}
