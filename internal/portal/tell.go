package portal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Whatever lets a person in is on the timeline, be it from a page, a command or
// an import. From there, and nowhere else, people are told of it, so that there
// is no way to add something in silence.

const (
	toldAtOnce = 500            // events looked at in one go
	toldAge    = 48 * time.Hour // of events that are still worth a message, as after mail was not configured
	toldLines  = 20             // of one message
)

// Untold is what nobody was told of yet, of a part of the timeline.
type Untold struct {
	From, Next int64 // the part's first index, and the one after it
	Events     []postern.Event
}

// Teller remembers how far on the timeline people were told.
//
// BeginTelling has them told from the timeline's end on, unless they are told
// already. Untold returns the events of some kinds from there on, at most n.
// Tell queues messages about them and goes on behind them, in one transaction:
// of any number of servers one does, and the others nothing. SSHKeyKnown reports
// whether the person of an SSH certificate had an earlier one for the same key
// that was not revoked.
type Teller interface {
	BeginTelling(ctx context.Context) error
	Untold(ctx context.Context, kinds []string, n int) (Untold, error)
	Tell(ctx context.Context, u Untold, m []Message) error
	SSHKeyKnown(ctx context.Context, serial string) (bool, error)
}

// gain says in words what an event has given to its person; "" is nothing that
// lets them in, or nothing new.
type gain func(p *Portal, ctx context.Context, e postern.Event) (string, error)

var gains = map[string]gain{
	postern.EventCertIssued:    (*Portal).certificateGained,
	postern.EventCertRenewed:   (*Portal).certificateGained,
	postern.EventSSHCertIssued: (*Portal).sshGained,
	postern.EventOTPKeyAdded:   (*Portal).keyGained,
	postern.EventOTPKeyChanged: (*Portal).keyGained,
	postern.EventACMEAccount:   (*Portal).acmeGained,
	postern.EventPortalCodes: func(*Portal, context.Context, postern.Event) (string, error) {
		return "New recovery codes were made. Any from before do not count any more.", nil
	},
	postern.EventOTPRecovery: func(*Portal, context.Context, postern.Event) (string, error) {
		return "New codes were made that stand in for one-time passwords. Any from before do not count any more.", nil
	},
}

// tellNew queues messages about all that has come to let people in.
func (p *Portal) tellNew(ctx context.Context) error {
	for {
		u, err := p.Store.Untold(ctx, slices.Sorted(maps.Keys(gains)), toldAtOnce)
		if err != nil || u.Next == u.From {
			return err
		}
		messages, err := p.newMessages(ctx, u.Events)
		if err != nil {
			return err
		}
		if err := p.Store.Tell(ctx, u, messages); err != nil || len(u.Events) < toldAtOnce {
			return err
		}
	}
}

// newMessages returns one message for each person whom events give something.
func (p *Portal) newMessages(ctx context.Context, events []postern.Event) ([]Message, error) {
	var names []string
	lines := map[string][]string{}
	for _, e := range events {
		if e.Person == "" || e.Outcome != postern.OK || p.now().Sub(e.Time) > toldAge {
			continue
		}
		words, err := gains[e.Kind](p, ctx, e)
		if err != nil {
			return nil, err
		}
		if words == "" {
			continue
		}
		if lines[e.Person] == nil {
			names = append(names, e.Person)
		}
		lines[e.Person] = append(lines[e.Person], oneLine(gainedWhen(e)+": "+words))
	}
	var messages []Message
	for _, name := range names {
		who, err := p.People.Person(ctx, name)
		if err != nil && postern.CodeOf(err) != postern.NotFound {
			return nil, err
		}
		if m := p.Links.tell(who, newMessage(p.Config, who, lines[name], p.now())); m != nil {
			messages = append(messages, *m)
		}
	}
	return messages, nil
}

// gainedWhen says when, from where and by whom.
func gainedWhen(e postern.Event) string {
	s := when(e.Time)
	if e.Address != "" {
		s += ", from " + e.Address
	} else {
		s += ", on the server itself"
	}
	if by := e.Details["by"]; by != "" {
		s += ", by " + by
	}
	return s
}

// labelled names what an event tells of as its owner does.
func (p *Portal) labelled(ctx context.Context, e postern.Event) (postern.Credential, error) {
	for _, l := range e.Links {
		if l.ID != e.Object {
			continue
		}
		c, err := p.People.Credential(ctx, postern.CredentialKind(l.Kind), l.ID)
		if err != nil && postern.CodeOf(err) == postern.NotFound {
			return postern.Credential{Kind: postern.CredentialKind(l.Kind), ID: l.ID}, nil
		}
		return c, err
	}
	return postern.Credential{ID: e.Object}, nil
}

func (p *Portal) certificateGained(ctx context.Context, e postern.Event) (string, error) {
	if e.Details["profile"] != "client" {
		return "", nil
	}
	c, err := p.labelled(ctx, e)
	what, did := "The certificate "+shortSerial(e.Object), " was made"
	if e.Kind == postern.EventCertRenewed {
		did = " was made, in place of an older one,"
	}
	if c.Label == "" {
		return what + strings.TrimSuffix(did, ",") + ".", err
	}
	return what + did + " for the device " + c.Label + ".", err
}

// sshGained leaves out a certificate for a key that had one: it is a new one
// every morning.
func (p *Portal) sshGained(ctx context.Context, e postern.Event) (string, error) {
	known, err := p.Store.SSHKeyKnown(ctx, e.Object)
	if err != nil || known {
		return "", err
	}
	for _, l := range e.Links {
		if l.Kind == string(postern.SSHKey) {
			return fmt.Sprintf("A certificate for the SSH key %s was made. It opens these accounts: %s.", l.ID, e.Details["principals"]), nil
		}
	}
	return "An SSH certificate was made.", nil
}

func (p *Portal) keyGained(ctx context.Context, e postern.Event) (string, error) {
	did := map[string]string{"assigned": "was added", "active": "was switched on again", "": "was given another secret"}[e.Reason+e.Details["status"]]
	if e.Kind == postern.EventOTPKeyAdded {
		did = "was added"
	}
	c, err := p.labelled(ctx, e)
	if err != nil || did == "" {
		return "", err
	}
	id := c.ID
	if c.Label != "" && (c.Kind == postern.TOTP || c.Kind == postern.HOTP) {
		id = "" // says nobody anything
	}
	return "The " + orDefault(credentialWords[c.Kind], "key") + " " + called(c.Label, id) + " " + did + ".", nil
}

func (p *Portal) acmeGained(_ context.Context, e postern.Event) (string, error) {
	switch key := called(e.Details["label"], e.Object); e.Details["did"] {
	case postern.ACMEKeyMade:
		return "The ACME key " + key + " was added.", nil
	case postern.ACMEKeyEnabled:
		return "The ACME key " + key + " was switched on again, with its account.", nil
	case postern.ACMERolledOver:
		return "The ACME account " + key + " was given another key.", nil
	}
	return "", nil
}

// newMessage tells of something new that lets in whoever has it.
func newMessage(c Config, who postern.Person, lines []string, now time.Time) Message {
	if more := len(lines) - toldLines; more > 0 {
		lines = append(lines[:toldLines:toldLines], fmt.Sprintf("and %d more, at %s/events", more, c.URL))
	}
	return message(who.Email, "Something new lets you into "+c.Name, now.Add(toldAge),
		"This is new for "+who.Name+":",
		"    "+strings.Join(lines, "\n    "),
		"If that was not you, somebody else has your certificate, or a key. Recover at once, which switches off whatever they made, at",
		"    "+c.URL+"/recover",
		"or tell your administrator.")
}
