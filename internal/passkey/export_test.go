package passkey

import "time"

// Advance moves the clock of the relying party.
func (p *Party) Advance(d time.Duration) {
	now := p.now
	p.now = func() time.Time { return now().Add(d) }
}
