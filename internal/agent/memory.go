package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/tlog"
)

// memory is what a host remembers of its server's timeline: the newest checkpoint that it
// saw. A server whose timeline does not contain it was rolled back, or shows this host
// another history than before, and is not trusted. It is safe for concurrent use.
type memory struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	last    string // the signed checkpoint, "" before the first
	kept    string // the one in the file
	failing bool   // it could not be written
	wrong   error  // why the server is not trusted; nil while it is
	// since is when the server first allowed a login after its last update; zero: it did not.
	since time.Time
}

func openMemory(path string, log *slog.Logger) (*memory, error) {
	text, err := durable.ReadSecret(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(text) > 0 {
		if _, err := timeline.ReadCheckpoint(string(text)); err != nil {
			return nil, postern.Errorf(postern.Invalid, "%s: %w", path, err).
				WithHint("remove it, if the disk damaged it")
		}
	}
	return &memory{path: path, log: log, last: string(text), kept: string(text)}, nil
}

// seen returns the newest checkpoint that this host saw, "" before the first.
func (m *memory) seen() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// see takes an update and returns whether what is trusted has changed.
func (m *memory) see(u remote.Update) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.wrong
	m.wrong = m.judge(u)
	if m.wrong == nil {
		m.since = time.Time{}
		m.keep()
	}
	return (before == nil) != (m.wrong == nil)
}

// judge returns why the server is not trusted, or remembers its checkpoint.
func (m *memory) judge(u remote.Update) error {
	if o := u.Other; o != nil {
		if err := checkGrowth(o.Checkpoint, u.Checkpoint, o.Growth); err != nil {
			return errForked("the host "+o.Host, m.path+" there", err)
		}
	}
	if u.Checkpoint == m.last && m.last != "" {
		return nil
	}
	if err := checkGrowth(m.last, u.Checkpoint, u.Growth); err != nil {
		return errForked("this host", m.path, err)
	}
	m.last = u.Checkpoint
	return nil
}

// keep writes the checkpoint to disk. A server is trusted also where that fails: else a local
// user who fills the disk would lock all others out. A restart then goes back to an earlier one.
func (m *memory) keep() {
	if m.kept == m.last {
		return
	}
	err := durable.Replace(m.path, []byte(m.last), 0o600)
	switch {
	case err == nil:
		m.kept = m.last
	case !m.failing:
		m.log.Error("what this host saw of the server's timeline is not kept: see whether the disk is full",
			slog.Any(postern.LogError, err))
	}
	m.failing = err != nil
}

// checkGrowth is [timeline.CheckGrowth] for a proof that came from a server.
func checkGrowth(older, newer string, growth [][]byte) error {
	proof := make(tlog.TreeProof, len(growth))
	for i, h := range growth {
		if len(h) != tlog.HashSize {
			return errors.New("no proof of growth")
		}
		copy(proof[i][:], h)
	}
	return timeline.CheckGrowth(older, newer, proof)
}

func errForked(host, path string, err error) error {
	return postern.Errorf(postern.Unavailable,
		"the server's timeline does not contain what %s saw of it before: %w", sshd.Printable(host), err).
		WithHint("find out whether the server was restored or attacked; if an administrator restored it, "+
			"stop the agent, remove %s and start the agent", path)
}

// trusted returns why the server is not trusted, nil while it is.
func (m *memory) trusted() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wrong
}

// overdue is for how long a server may allow logins without an update, so that none hides
// what its timeline has become by showing nothing. An update is asked for every few seconds.
const overdue = time.Minute

// allowed returns why the server, which has just allowed a login, is not trusted.
func (m *memory) allowed(now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		m.since = now
	}
	if m.wrong == nil && now.Sub(m.since) > overdue {
		return postern.Errorf(postern.Unavailable, "the server allows logins, and has not shown its timeline for %v",
			now.Sub(m.since).Round(time.Second)).
			WithHint("see what the agent's log says, and find out whether the server was attacked")
	}
	return m.wrong
}

// trusting is a checker that asks only a server that is trusted.
type trusting struct {
	sshd.Checker
	memory *memory
}

// CheckCode implements [sshd.Checker].
func (b trusting) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	if err := b.memory.trusted(); err != nil {
		return sshd.Proof{}, err
	}
	proof, err := b.Checker.CheckCode(ctx, a)
	if err == nil {
		err = b.memory.allowed(time.Now())
	}
	return proof, err
}

// CheckAccount implements [sshd.Checker].
func (b trusting) CheckAccount(ctx context.Context, user string) (string, error) {
	if err := b.memory.trusted(); err != nil {
		return "", err
	}
	person, err := b.Checker.CheckAccount(ctx, user)
	if err == nil {
		err = b.memory.allowed(time.Now())
	}
	return person, err
}

// againAfter is the longest pause after the server did not answer.
const againAfter = 5 * time.Second

// keepWatching takes the server's updates until ctx ends.
func (c Config) keepWatching(ctx context.Context, ask remote.Client, m *memory, codes *rescue.File, report *reporter) {
	for failing := false; ctx.Err() == nil; {
		u, err := ask.Watch(ctx, remote.Seen{Checkpoint: m.seen(), Rescue: codes.ID()})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				c.Log.WarnContext(ctx, "the server does not accept this host", slog.Any(postern.LogError, err))
			}
			failing = true
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(againAfter)):
			}
			continue
		}
		failing = false
		c.take(ctx, u, m, codes, report)
	}
}

// take takes an update. Of a server that is not trusted nothing takes effect: else its
// rescue codes would be accepted in the place of its answers.
func (c Config) take(ctx context.Context, u remote.Update, m *memory, codes *rescue.File, report *reporter) {
	if m.see(u) {
		c.reportMemory(ctx, m.trusted(), report)
	}
	if m.trusted() == nil {
		c.keepRescue(ctx, u.Rescue, codes)
	}
}

// reportMemory says that the server is not trusted, or is again.
func (c Config) reportMemory(ctx context.Context, wrong error, report *reporter) {
	e := postern.Event{
		Time: time.Now().UTC(), Kind: postern.EventCheckTimeline, Outcome: postern.OK, Host: c.Host, Object: c.Host,
	}
	if wrong != nil {
		e.Outcome, e.Reason = postern.Failed, wrong.Error()
		c.Log.ErrorContext(ctx, "THE SERVER IS NOT TRUSTED: nothing that it decides is accepted",
			slog.Any(postern.LogError, wrong))
	}
	report.event(e)
}

// keepRescue keeps a set of rescue codes from the server.
func (c Config) keepRescue(ctx context.Context, text json.RawMessage, codes *rescue.File) {
	if len(text) == 0 {
		return
	}
	var set rescue.Set
	err := json.Unmarshal(text, &set)
	if err == nil {
		err = codes.Keep(set)
	}
	if err != nil {
		c.Log.WarnContext(ctx, "the rescue codes are not kept", slog.Any(postern.LogError, err))
	}
}
