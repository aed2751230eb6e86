package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
)

// grow appends entries to a timeline and returns the update for a host that has seen it
// with some checkpoint.
func grow(t *testing.T, db *store.DB, kinds int, seen string) remote.Update {
	t.Helper()
	var size int64
	if seen != "" {
		c, err := timeline.ReadCheckpoint(seen)
		if err != nil {
			t.Fatal(err)
		}
		size = c.Size
	}
	for range kinds {
		if err := db.Append(t.Context(), postern.Event{Kind: postern.EventAlertTest, Outcome: postern.OK}); err != nil {
			t.Fatal(err)
		}
	}
	signed, proofs, err := db.Timeline().Growth(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	u := remote.Update{Checkpoint: signed}
	for _, h := range proofs[0] {
		u.Growth = append(u.Growth, h[:])
	}
	return u
}

// agrees is a checker that agrees to everything.
type agrees struct{}

func (agrees) CheckCode(context.Context, sshd.Attempt) (sshd.Proof, error) { return sshd.Proof{}, nil }
func (agrees) CheckAccount(context.Context, string) (string, error)        { return "", nil }

// TestAServerThatForgotIsNotTrusted shows a host a timeline that grows, one that was
// rolled back, and one with another history, also after the host's agent was started anew.
func TestAServerThatForgotIsNotTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	open := func() *memory {
		m, err := openMemory(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	db, fork := storetest.Open(t), storetest.Open(t)
	m := open()
	early := grow(t, db, 3, "")
	for _, n := range []int{0, 1, 300, 0, 7} {
		m.see(grow(t, db, n, m.seen()))
		if err := m.trusted(); err != nil {
			t.Fatalf("a timeline that grew by %d: %v", n, err)
		}
	}
	for name, u := range map[string]remote.Update{
		"rolled back": early, "forked": grow(t, fork, 400, m.seen()), "without a proof": {
			Checkpoint: grow(t, db, 1, "").Checkpoint,
		}, "nothing": {}, "nonsense": {Checkpoint: "log\n999999\nx\n\n"},
	} {
		m := open()
		m.see(u)
		if m.trusted() == nil {
			t.Errorf("%s: trusted", name)
		}
		if _, err := (trusting{agrees{}, m}).CheckCode(t.Context(), sshd.Attempt{}); err == nil {
			t.Errorf("%s: a code was accepted", name)
		}
		if _, err := (trusting{agrees{}, m}).CheckAccount(t.Context(), "alice"); err == nil {
			t.Errorf("%s: an account was accepted", name)
		}
	}
	m = open()
	if m.see(grow(t, db, 1, m.seen())); m.trusted() != nil {
		t.Errorf("the true timeline afterwards: %v", m.trusted())
	}
}

// TestOnlyATrustedServerGivesRescueCodes has a server that was rolled back send rescue
// codes: they would be accepted in the place of its answers.
func TestOnlyATrustedServerGivesRescueCodes(t *testing.T) {
	dir := t.TempDir()
	m, err := openMemory(filepath.Join(dir, "checkpoint"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t)
	early := grow(t, db, 3, "")
	var reported []postern.Event
	c := Config{Host: "hv1", Log: slog.New(slog.DiscardHandler)}
	report := &reporter{host: "hv1", log: c.Log, print: func(e postern.Event) { reported = append(reported, e) }}
	codes := &rescue.File{Path: filepath.Join(dir, "rescue.json")}
	send := func(u remote.Update) (id string) {
		_, set := rescue.New(1, time.Now())
		if u.Rescue, err = json.Marshal(set); err != nil {
			t.Fatal(err)
		}
		c.take(t.Context(), u, m, codes, report)
		return set.ID
	}
	if id := send(grow(t, db, 5, "")); codes.ID() != id {
		t.Errorf("the codes of a trusted server are not kept: %q, want %q", codes.ID(), id)
	}
	before := codes.ID()
	if send(early); codes.ID() != before || len(reported) != 1 || reported[0].Outcome != postern.Failed {
		t.Errorf("the codes of a server that was rolled back are kept; reported %+v", reported)
	}
	if id := send(grow(t, db, 1, m.seen())); codes.ID() != id || len(reported) != 2 {
		t.Errorf("the codes of the true server afterwards are not kept; reported %+v", reported)
	}
}

// TestAServerThatShowsNothingIsNotTrusted has a server allow logins and show no checkpoint.
func TestAServerThatShowsNothingIsNotTrusted(t *testing.T) {
	m, err := openMemory(filepath.Join(t.TempDir(), "checkpoint"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	db, start := storetest.Open(t), time.Now()
	for _, late := range []time.Duration{0, overdue} {
		if err := m.allowed(start.Add(late)); err != nil {
			t.Errorf("after %v: %v", late, err)
		}
	}
	if err := m.allowed(start.Add(overdue + time.Second)); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("a server that shows nothing: %v", err)
	}
	m.since = time.Now().Add(-2 * overdue)
	if _, err := (trusting{agrees{}, m}).CheckCode(t.Context(), sshd.Attempt{}); err == nil {
		t.Error("a code was accepted")
	}
	if _, err := (trusting{agrees{}, m}).CheckAccount(t.Context(), "alice"); err == nil {
		t.Error("an account was accepted")
	}
	m.see(grow(t, db, 1, ""))
	if _, err := (trusting{agrees{}, m}).CheckCode(t.Context(), sshd.Attempt{}); err != nil {
		t.Errorf("with a checkpoint again: %v", err)
	}
}

// TestWhatAnotherHostSaw shows a host that remembers nothing a timeline that another host was
// shown differently: one that was rolled back, and one that was forked.
func TestWhatAnotherHostSaw(t *testing.T) {
	db, fork := storetest.Open(t), storetest.Open(t)
	early := grow(t, db, 3, "")
	saw := grow(t, db, 7, "").Checkpoint
	other := func(checkpoint string, now remote.Update) remote.Update {
		now.Other = &remote.Sighting{Host: "hv1", Checkpoint: checkpoint, Growth: now.Growth}
		return now
	}
	for name, c := range map[string]struct {
		u       remote.Update
		trusted bool
	}{
		"the same":             {other(saw, grow(t, db, 0, saw)), true},
		"the same that grew":   {other(saw, grow(t, db, 5, saw)), true},
		"rolled back":          {other(saw, early), false},
		"forked":               {other(saw, grow(t, fork, 40, saw)), false},
		"without a proof":      {other(early.Checkpoint, grow(t, db, 0, "")), false},
		"another that is none": {other("x", grow(t, db, 0, "")), false},
	} {
		m, err := openMemory(filepath.Join(t.TempDir(), "checkpoint"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		m.see(c.u)
		if err := m.trusted(); (err == nil) != c.trusted {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := (trusting{agrees{}, m}).CheckCode(t.Context(), sshd.Attempt{}); (err == nil) != c.trusted {
			t.Errorf("%s: a code: %v", name, err)
		}
		if !c.trusted && m.seen() != "" {
			t.Errorf("%s: it is remembered", name)
		}
	}
}

// TestAFullDiskLocksNobodyOut has a disk on which the newest checkpoint cannot be kept, as a
// local user can fill it: the server is trusted still, and its timeline is compared with the
// newest checkpoint until the agent is started again, and then with the last that was kept.
func TestAFullDiskLocksNobodyOut(t *testing.T) {
	dir := posterntest.Mounted(t, "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs")
	path := filepath.Join(dir, "checkpoint")
	m, err := openMemory(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t)
	m.see(grow(t, db, 3, ""))
	kept := m.seen()
	posterntest.Fill(t, filepath.Join(dir, "full"))
	between := grow(t, db, 2, kept)
	m.see(grow(t, db, 2, kept))
	if err := m.trusted(); err != nil || m.seen() == kept {
		t.Errorf("with a full disk: %v", err)
	}
	if m.see(between); m.trusted() == nil {
		t.Error("a timeline without what was seen with a full disk is trusted")
	}
	if again, err := openMemory(path, m.log); err != nil || again.seen() != kept {
		t.Errorf("after a restart: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
	m.see(grow(t, db, 0, m.seen()))
	if again, err := openMemory(path, m.log); err != nil || again.seen() != m.seen() || m.trusted() != nil {
		t.Errorf("with space again: %v, %v", err, m.trusted())
	}
}
