package agent

import (
	"context"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/sshd"
)

// oneTrip is a checker by which a login waits for the server once. sshd asks about a code
// and, right behind it, about the account; a server that accepts the code has said that the
// account's person is active. It is safe for concurrent use.
type oneTrip struct {
	sshd.Checker

	mu       sync.Mutex
	accepted map[string]acceptance // by account
}

// acceptance is what the server said with a code that it accepted.
type acceptance struct {
	person string
	at     time.Time
}

// accountWithin is for how long after a code the account's question is answered by it, once.
// A suspension in between takes effect at the next login.
const accountWithin = 5 * time.Second

// maxAccounts bounds the accounts that are remembered.
const maxAccounts = 1000

// CheckCode implements [sshd.Checker].
func (o *oneTrip) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	proof, err := o.Checker.CheckCode(ctx, a)
	if err != nil {
		return proof, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.accepted == nil || len(o.accepted) >= maxAccounts {
		o.accepted = map[string]acceptance{}
	}
	o.accepted[a.User] = acceptance{proof.Person, time.Now()}
	return proof, nil
}

// CheckAccount implements [sshd.Checker].
func (o *oneTrip) CheckAccount(ctx context.Context, user string) (string, error) {
	o.mu.Lock()
	a, ok := o.accepted[user]
	delete(o.accepted, user)
	o.mu.Unlock()
	if ok && time.Since(a.at) < accountWithin {
		return a.person, nil
	}
	return o.Checker.CheckAccount(ctx, user)
}
