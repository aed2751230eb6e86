package server

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/tlog"
)

// servers returns a server, one whose whole state directory was put back, and one that went
// another way from there.
func servers(t *testing.T) (live, restored, forked hostUpdates) {
	t.Helper()
	open := func(dir string) hostUpdates {
		st, err := state.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { st.Close() })
		return hostUpdates{st.Store, &sightings{log: st.Store.Timeline()}}
	}
	here := filepath.Join(t.TempDir(), "state")
	st, err := state.Create(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, hostUpdates{db: st.Store}, 5)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	copies := t.TempDir()
	for _, name := range []string{"restored", "forked"} {
		if out, err := exec.Command("cp", "-a", here, filepath.Join(copies, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	live, restored, forked = open(here), open(filepath.Join(copies, "restored")), open(filepath.Join(copies, "forked"))
	grow(t, live, 3)
	grow(t, forked, 9)
	return live, restored, forked
}

// TestHostsLearnWhatOthersSaw has hosts report what they saw to each of these servers.
func TestHostsLearnWhatOthersSaw(t *testing.T) {
	live, restored, forked := servers(t)
	foreign := hostUpdates{db: storetest.Open(t)}
	grow(t, foreign, 50)
	early, late := ask(t, restored, "hv0", "").Checkpoint, ask(t, live, "hv0", "").Checkpoint
	alien, _, err := foreign.db.Timeline().Growth(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		server hostUpdates
		hv1    string // what it saw
		relays bool
		proof  bool // that the server's timeline contains that
	}{
		"the server":        {live, late, true, true},
		"an earlier report": {live, early, true, true},
		"put back":          {restored, late, true, false},
		"another way":       {forked, late, true, false},
		"a foreign report":  {live, alien, false, false},
	} {
		c.server.seen = &sightings{log: c.server.db.Timeline()} // as after a start
		ask(t, c.server, "hv1", c.hv1)
		u := ask(t, c.server, "hv2", "")
		if (u.Other != nil) != c.relays {
			t.Errorf("%s: hv2 is given %+v", name, u.Other)
		}
		if u.Other == nil {
			continue
		}
		proof := make(tlog.TreeProof, len(u.Other.Growth))
		for i, h := range u.Other.Growth {
			copy(proof[i][:], h)
		}
		if err := timeline.CheckGrowth(u.Other.Checkpoint, u.Checkpoint, proof); (err == nil) != c.proof {
			t.Errorf("%s: %v", name, err)
		}
		if again := ask(t, c.server, "hv1", c.hv1); again.Other != nil {
			t.Errorf("%s: a host is given its own report: %+v", name, again.Other)
		}
	}
	forked.seen = &sightings{log: forked.db.Timeline()}
	for host, saw := range map[string]string{"hv1": late, "hv3": ask(t, forked, "hv0", "").Checkpoint, "hv4": early} {
		ask(t, forked, host, saw)
	}
	if u := ask(t, forked, "hv2", ""); u.Other == nil || u.Other.Host != "hv1" {
		t.Errorf("of three reports the one that is not contained is not relayed, but %+v", u.Other)
	}
}

// TestHostsAreFreedAfterARestore has an administrator put a state back, suspend a host, and have
// the others forget what they saw, as their agents say to do: the server need not be started again.
func TestHostsAreFreedAfterARestore(t *testing.T) {
	live, restored, _ := servers(t)
	late := ask(t, live, "hv0", "").Checkpoint
	for _, host := range []string{"hv1", "hv2", "suspended"} {
		ask(t, restored, host, late)
	}
	for host, s := range restored.seen.by { // a while later
		s.at = s.at.Add(-reportedWithin)
		restored.seen.by[host] = s
	}
	for _, host := range []string{"hv1", "hv2"} {
		if u := ask(t, restored, host, ""); u.Other != nil {
			t.Errorf("%s is told what no host reports any more: %+v", host, u.Other)
		}
	}
}

func grow(t *testing.T, to hostUpdates, entries int) {
	t.Helper()
	for range entries {
		e := postern.Event{Kind: postern.EventAlertTest, Outcome: postern.OK}
		if err := to.db.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// ask asks for an update as a host that saw a checkpoint.
func ask(t *testing.T, from hostUpdates, host, saw string) remote.Update {
	t.Helper()
	u, err := from.of(t.Context(), host, remote.Seen{Checkpoint: saw})
	if err != nil {
		t.Fatal(err)
	}
	return u
}
