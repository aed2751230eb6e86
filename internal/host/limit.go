package host

import (
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// How many certificates a host gets at once, and after what time one more. A host has about
// ten, for months: one that asks for more would fill the database, and with its removal the
// revocation lists of all others.
const (
	maxBurst = 200
	oneMore  = time.Minute
)

// Limit bounds how many certificates each host gets. The zero value is one that no host
// has used; it is safe for concurrent use.
type Limit struct {
	mu   sync.Mutex
	full map[string]time.Time // by host: when it may have a whole burst again
}

// Take counts a certificate that a host asks for, or returns a TooMany error. It remembers
// hosts alone that asked lately.
func (l *Limit) Take(host string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.full[host]
	if full.Before(now) {
		full = now
	}
	if full = full.Add(oneMore); full.Sub(now) > maxBurst*oneMore {
		return postern.Errorf(postern.TooMany, "the host %s asks for too many certificates", host).
			WithHint("see what asks on that host; one more is issued after %v", oneMore)
	}
	if l.full == nil {
		l.full = map[string]time.Time{}
	}
	for other, at := range l.full {
		if at.Before(now) {
			delete(l.full, other)
		}
	}
	l.full[host] = full
	return nil
}
