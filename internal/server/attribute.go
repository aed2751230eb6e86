package server

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/timeline"
)

// attribution adds to events from hosts who did what they report, and how well that is
// known. It is safe for concurrent use.
type attribution struct {
	st  *state.State
	log *slog.Logger

	mu       sync.Mutex
	sessions map[string]doer // by the ID of the link to the session
}

// doer is who acts in a session.
type doer struct {
	person string
	known  timeline.Strength
	until  time.Time // it is looked for again; zero: never
}

// maxSessions bounds the sessions that are remembered, and unknownFor is for how long it is
// remembered that a session is no person's: its login may be reported late.
const (
	maxSessions = 4096
	unknownFor  = 10 * time.Second
)

// complete adds to each event of a batch its person, and how well that is known.
func (a *attribution) complete(ctx context.Context, batch []relay.Numbered) {
	accounts := map[string]string{}
	for i := range batch {
		e := &batch[i].Event
		if account := accountOf(*e); account != "" {
			if _, ok := accounts[account]; !ok {
				accounts[account] = accountPerson(ctx, a.st, account, cmp.Or(e.Host, hostName()))
			}
			e.Person = accounts[account]
		}
		if e.Kind != postern.EventLibvirtCall && e.Person == "" {
			continue
		}
		d := a.doerOf(ctx, e, batch[:i])
		if e.Person = d.person; d.known != "" {
			setDetail(e, timeline.Known, string(d.known))
		}
	}
}

func setDetail(e *postern.Event, key, value string) {
	if e.Details == nil {
		e.Details = map[string]string{}
	}
	e.Details[key] = value
}

// accountOf returns the account of a login or session: the one that asked to become
// another, where there is such.
func accountOf(e postern.Event) string {
	switch e.Kind {
	case postern.EventSSHAuth, postern.EventSSHOpened, postern.EventSSHClosed:
		return e.Object
	case postern.EventPAMAuth, postern.EventPAMOpened, postern.EventPAMClosed:
		return cmp.Or(e.Details["user"], e.Object)
	}
	return ""
}

// doerOf returns who did what e reports; before are the events that the store does not
// have yet.
func (a *attribution) doerOf(ctx context.Context, e *postern.Event, before []relay.Numbered) doer {
	if e.Kind != postern.EventLibvirtCall {
		return a.joined(ctx, *e, before)
	}
	var d doer
	// Without a session no login led to it: a service, a timer, a client of TCP.
	if session := linkTo(*e, postern.LinkSession); session != "" {
		var known bool
		if d, known = a.remembered(session); !known {
			d = a.joined(ctx, *e, before)
			a.remember(session, d)
		}
	}
	if d.person == "" {
		d = a.authenticated(ctx, e)
	}
	return d
}

// joined returns who did what e reports, by what it is joined with.
func (a *attribution) joined(ctx context.Context, e postern.Event, before []relay.Numbered) (d doer) {
	var err error
	d.person, d.known, err = timeline.Doer(ctx, pending{a.st.Store.Timeline(), before}, inBatch(e, len(before)))
	if err != nil {
		a.log.WarnContext(ctx, "whose session it is was not found", slog.Any(postern.LogError, err))
		return doer{person: e.Person}
	}
	return d
}

// authenticated returns the person that a client of libvirt proved to be, as the host
// says: by the one valid certificate of a person with that subject, which is added to the
// event's links, or by the account "sasl:NAME" of a person.
func (a *attribution) authenticated(ctx context.Context, e *postern.Event) doer {
	if name := e.Details["sasl"]; name != "" {
		if person := accountPerson(ctx, a.st, saslAccount+name, cmp.Or(e.Host, hostName())); person != "" {
			return doer{person: person, known: toldBy(*e)}
		}
		return doer{}
	}
	subject := e.Details["tls"]
	person := a.personOf(ctx, subject)
	if person == "" {
		return doer{}
	}
	certs, err := a.st.Store.CA().Certificates(ctx, ca.Filter{
		Person: person, Profile: ca.ProfileClient, Valid: a.st.Store.Now(),
	})
	certs = slices.DeleteFunc(certs, func(c ca.Certificate) bool { return !ca.SameSubject(c.Subject, subject) })
	if err != nil || len(certs) == 0 {
		return doer{}
	}
	if len(certs) == 1 {
		e.Links = append(e.Links, postern.Link{Kind: string(postern.X509Certificate), ID: certs[0].Serial})
	}
	return doer{person: person, known: toldBy(*e)}
}

// saslAccount begins the name of an account that is a user of SASL, and none of a host's.
const saslAccount = "sasl:"

// toldBy returns how well a person is known by what a host says alone; "" for this one.
func toldBy(e postern.Event) timeline.Strength {
	if e.Host == "" {
		return ""
	}
	return timeline.Strong
}

// personOf returns the person whose name or e-mail address is the CN of a subject.
func (a *attribution) personOf(ctx context.Context, subject string) string {
	name := ca.CommonName(subject)
	if name == "" {
		return ""
	}
	if p, err := a.st.Store.People().Person(ctx, name); err == nil {
		return p.Name
	}
	p, err := a.st.Store.People().PersonByEmail(ctx, name)
	if err != nil {
		return ""
	}
	return p.Name
}

// remembered returns who acts in a session, and whether that is known.
func (a *attribution) remembered(session string) (doer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, ok := a.sessions[session]
	return d, ok && (d.until.IsZero() || time.Now().Before(d.until))
}

// remember keeps who acts in a session: that it is no person's for a while only.
func (a *attribution) remember(session string, d doer) {
	if d.person == "" || d.known == timeline.Guess {
		d.until = time.Now().Add(unknownFor)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions == nil || len(a.sessions) >= maxSessions {
		a.sessions = map[string]doer{}
	}
	a.sessions[session] = d
}

// pending is the timeline with the events of a batch behind it.
type pending struct {
	timeline.Source
	batch []relay.Numbered
}

// Events implements [timeline.Source].
func (p pending) Events(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	events, err := p.Source.Events(ctx, f)
	for i, n := range p.batch {
		if e := inBatch(n.Event, i); f.Match(e) {
			events = append(events, e)
		}
	}
	return events, err
}

// inBatch returns an event of a batch with an index behind all that the timeline has.
func inBatch(e postern.Event, i int) postern.Event {
	e.Index = math.MaxInt64/2 + int64(i)
	return e
}

// linkTo returns the ID of an event's first link of a kind, or "".
func linkTo(e postern.Event, kind string) string {
	for _, l := range e.Links {
		if l.Kind == kind {
			return l.ID
		}
	}
	return ""
}
