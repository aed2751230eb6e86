package rescue

import (
	"context"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// Method is the detail "method" of the event of a login by a rescue code.
const Method = "rescue code"

// Checker asks a server and, while none answers, accepts the rescue codes of this host. It
// decides nothing else by itself. It is safe for concurrent use.
type Checker struct {
	Server sshd.Checker
	Codes  *File
	Record sshd.Recorder // reports to the server when it answers again
	Log    *slog.Logger

	mu       sync.Mutex
	accepted map[string]time.Time // by account: when it gave a code
}

// CheckCode implements [sshd.Checker].
func (c *Checker) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	proof, err := c.Server.CheckCode(ctx, a)
	if _, ok := plain(a.Code); !ok || postern.CodeOf(err) != postern.Unavailable {
		return proof, err
	}
	id, left, useErr := c.Codes.Use(a.Code)
	if useErr != nil {
		c.Log.WarnContext(ctx, "a rescue code was refused", slog.Any(postern.LogError, useErr))
		return proof, useErr
	}
	c.Log.WarnContext(ctx, "a rescue code was accepted, since no server answers; so many are left",
		slog.Int(postern.LogCount, left))
	c.mu.Lock()
	if c.accepted == nil || len(c.accepted) > maxAccounts {
		c.accepted = map[string]time.Time{}
	}
	c.accepted[a.User] = time.Now()
	c.mu.Unlock()
	if a.Event.Kind == "" {
		return sshd.Proof{}, nil
	}
	e := a.Event
	e.Details = maps.Clone(e.Details)
	e.Details["method"], e.Details["rescue"] = Method, id+", "+strconv.Itoa(left)+" left"
	return sshd.Proof{}, c.Record.Append(context.WithoutCancel(ctx), e)
}

// maxAccounts bounds the accounts that are remembered.
const maxAccounts = 1000

// accountWithin is for how long after a rescue code its account is taken for active:
// pam_postern asks about it right behind the code.
const accountWithin = time.Minute

// CheckAccount implements [sshd.Checker].
func (c *Checker) CheckAccount(ctx context.Context, user string) (string, error) {
	person, err := c.Server.CheckAccount(ctx, user)
	if postern.CodeOf(err) != postern.Unavailable {
		return person, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.accepted[user]; ok && time.Since(at) < accountWithin {
		return "", nil
	}
	return person, err
}
