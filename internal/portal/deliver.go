package portal

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern"
)

const (
	mailPoll  = 5 * time.Second // how long a message or an event from another process may wait
	mailLease = 2 * time.Minute
	mailBatch = 20
)

// queue stores a message and wakes the sender. It drops a message without an
// address, and all messages where mail is not configured.
func (p *Portal) queue(ctx context.Context, m Message) {
	if p.Mail == nil || m.To == "" {
		return
	}
	m.Queued = p.now().UTC()
	if err := p.Store.PutMessage(ctx, m); err != nil {
		p.Log.Error("message not queued", postern.LogError, err)
		return
	}
	p.wakeMail()
}

// Flush wakes the sender, after a link was made by other means than a page.
func (p *Portal) Flush() { p.wakeMail() }

func (p *Portal) wakeMail() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Portal) runMail(ctx context.Context) {
	if p.Mail == nil {
		return
	}
	tick := time.NewTicker(mailPoll)
	defer tick.Stop()
	for {
		if err := p.notifyNew(ctx); err != nil && ctx.Err() == nil {
			p.Log.Error("people not notified", postern.LogError, err)
		}
		p.sendDue(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.wake:
		}
	}
}

// sendDue sends every message that is due.
func (p *Portal) sendDue(ctx context.Context) {
	for ctx.Err() == nil {
		due, err := p.Store.DueMessages(ctx, p.now(), mailBatch, mailLease)
		if err != nil {
			p.Log.Error("messages not read", postern.LogError, err)
			return
		}
		if len(due) == 0 {
			return
		}
		for _, m := range due {
			p.send(ctx, m)
		}
	}
}

func (p *Portal) send(ctx context.Context, m Message) {
	if !m.Expires.After(p.now()) {
		p.Log.Warn("message expired before it could be sent", postern.LogID, m.ID, postern.LogCount, m.Tries)
		p.logError(p.Store.DropMessage(ctx, m.ID))
		return
	}
	if err := p.Mail.Send(ctx, m); err != nil {
		wait := min(time.Hour, 15*time.Second<<min(m.Tries, 8))
		p.Log.Warn("message not sent", postern.LogID, m.ID, postern.LogError, err, postern.LogCount, m.Tries+1)
		p.logError(p.Store.RetryMessage(ctx, m.ID, p.now().Add(wait)))
		return
	}
	p.logError(p.Store.DropMessage(ctx, m.ID))
}

func (p *Portal) logError(err error) {
	if err != nil {
		p.Log.Error("store", postern.LogError, err)
	}
}

// runReminders reminds owners of certificates that expire soon, once for each of
// Config.Remind, and deletes what has expired from the store.
func (p *Portal) runReminders(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := p.RemindNow(ctx); err != nil && ctx.Err() == nil {
			p.Log.Error("reminders", postern.LogError, err)
		}
		if err := p.Store.ForgetExpired(ctx, p.now()); err != nil && ctx.Err() == nil {
			p.Log.Error("expired rows", postern.LogError, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// RemindNow queues the reminders that are due, for each certificate the latest
// one only. A certificate that has a successor gets none.
func (p *Portal) RemindNow(ctx context.Context) error {
	if p.Mail == nil {
		return nil
	}
	now := p.now()
	certs, err := p.Authority.Valid(ctx)
	if err != nil {
		return err
	}
	spans := slices.Sorted(slices.Values(p.Remind))
	longest := map[string]time.Time{}
	for _, c := range certs {
		if use := purposeOf(c); c.NotAfter.After(longest[use]) {
			longest[use] = c.NotAfter
		}
	}
	for _, c := range certs {
		i := slices.IndexFunc(spans, func(before time.Duration) bool { return c.NotAfter.Sub(now) <= before })
		if i < 0 || longest[purposeOf(c)].After(c.NotAfter) { // it has a successor
			continue
		}
		who, err := p.People.Person(ctx, c.Person)
		if err != nil || !who.Active() || who.Email == "" {
			continue
		}
		m := reminderMessage(p.Config, who, c)
		m.Queued = now.UTC()
		if _, err := p.Store.RemindOnce(ctx, c.Serial, spans[i], m); err != nil {
			return err
		}
	}
	p.wakeMail()
	return nil
}

// purposeOf returns what a certificate and its successors have in common: owner, label
// and names.
func purposeOf(c Certificate) string {
	return fmt.Sprintf("%q %t %q %q", c.Person, c.Server, c.Label, c.Names)
}
