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

// Every credential that grants access is on the timeline, whether it was added by a
// page, a command or an import. People are notified from the timeline only, so no
// credential can be added without a notification.

const (
	notifyBatch = 500            // events that are read at once
	noticeAge   = 48 * time.Hour // older events are not reported, as after mail was not configured for a while
	noticeLines = 20             // of one message
)

// Unnotified is the next part of the timeline that people were not notified of.
type Unnotified struct {
	From, Next int64 // the part's first index, and the one after its last
	Events     []postern.Event
}

// NotificationStore stores up to which entry of the timeline people were notified.
//
// StartNotifying sets that mark to the timeline's end, unless it is set. Unnotified
// returns the first n events of some kinds after it. Notify queues messages about
// them and moves the mark to u.Next, in one transaction; it does nothing if another
// server has done so. SSHKeyKnown reports whether the person of an SSH certificate
// had an earlier one for the same key that was not revoked.
type NotificationStore interface {
	StartNotifying(ctx context.Context) error
	Unnotified(ctx context.Context, kinds []string, n int) (Unnotified, error)
	Notify(ctx context.Context, u Unnotified, m []Message) error
	SSHKeyKnown(ctx context.Context, serial string) (bool, error)
}

// notice says in words which credential an event has added for its person; "" if it
// has added none that grants access, or none that is new.
type notice func(p *Portal, ctx context.Context, e postern.Event) (string, error)

// notices has a notice for each kind of event that grants access.
var notices = map[string]notice{
	postern.EventCertIssued:     (*Portal).certificateNotice,
	postern.EventCertRenewed:    (*Portal).certificateNotice,
	postern.EventSSHCertIssued:  (*Portal).sshNotice,
	postern.EventSSHKeyAdded:    (*Portal).keyNotice,
	postern.EventPasskeyAdded:   (*Portal).keyNotice,
	postern.EventPasskeyChanged: (*Portal).keyNotice,
	postern.EventOTPKeyAdded:    (*Portal).keyNotice,
	postern.EventOTPKeyChanged:  (*Portal).keyNotice,
	postern.EventACMEAccount:    (*Portal).acmeNotice,
	postern.EventPortalCodes: func(*Portal, context.Context, postern.Event) (string, error) {
		return "New recovery codes were made. Older ones are not valid any more.", nil
	},
	postern.EventOTPRecovery: func(*Portal, context.Context, postern.Event) (string, error) {
		return "New backup codes were made, each of which replaces a one-time password. Older ones are not valid " +
			"any more.", nil
	},
}

// notifyNew queues messages about all credentials that were added.
func (p *Portal) notifyNew(ctx context.Context) error {
	for {
		u, err := p.Store.Unnotified(ctx, slices.Sorted(maps.Keys(notices)), notifyBatch)
		if err != nil || u.Next == u.From {
			return err
		}
		messages, err := p.newMessages(ctx, u.Events)
		if err != nil {
			return err
		}
		if err := p.Store.Notify(ctx, u, messages); err != nil || len(u.Events) < notifyBatch {
			return err
		}
	}
}

// newMessages returns one message for each person for whom events have added a
// credential.
func (p *Portal) newMessages(ctx context.Context, events []postern.Event) ([]Message, error) {
	var names []string
	lines := map[string][]string{}
	for _, e := range events {
		if e.Person == "" || e.Outcome != postern.OK || p.now().Sub(e.Time) > noticeAge {
			continue
		}
		words, err := notices[e.Kind](p, ctx, e)
		if err != nil {
			return nil, err
		}
		if words == "" {
			continue
		}
		if lines[e.Person] == nil {
			names = append(names, e.Person)
		}
		lines[e.Person] = append(lines[e.Person], oneLine(noticeOrigin(e)+": "+words))
	}
	var messages []Message
	for _, name := range names {
		who, err := p.People.Person(ctx, name)
		if err != nil && postern.CodeOf(err) != postern.NotFound {
			return nil, err
		}
		if m := p.Links.mailTo(who, newMessage(p.Config, who, lines[name], p.now())); m != nil {
			messages = append(messages, *m)
		}
	}
	return messages, nil
}

// noticeOrigin says when, from where and by whom.
func noticeOrigin(e postern.Event) string {
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

// labelled returns the credential that an event is about, with its owner's label.
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

func (p *Portal) certificateNotice(ctx context.Context, e postern.Event) (string, error) {
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

// sshNotice leaves out a certificate for a key that had one: people get a new one
// every day.
func (p *Portal) sshNotice(ctx context.Context, e postern.Event) (string, error) {
	known, err := p.Store.SSHKeyKnown(ctx, e.Object)
	if err != nil || known {
		return "", err
	}
	for _, l := range e.Links {
		if l.Kind == string(postern.SSHKey) {
			return fmt.Sprintf("A certificate for the SSH key %s was made. It opens these accounts: %s.", l.ID,
				e.Details["principals"]), nil
		}
	}
	return "An SSH certificate was made.", nil
}

func (p *Portal) keyNotice(ctx context.Context, e postern.Event) (string, error) {
	did := map[string]string{
		"assigned": "was added", "active": "was enabled again",
		"": "was given another secret",
	}[e.Reason+e.Details["status"]]
	switch e.Kind {
	case postern.EventOTPKeyAdded, postern.EventSSHKeyAdded, postern.EventPasskeyAdded:
		did = "was added"
	}
	c, err := p.labelled(ctx, e)
	if err != nil || did == "" {
		return "", err
	}
	id := c.ID
	if c.Label != "" && (c.Kind == postern.TOTP || c.Kind == postern.HOTP || c.Kind == postern.Passkey) {
		id = "" // random, and unknown to the person
	}
	return "The " + orDefault(credentialWords[c.Kind], "key") + " " + called(c.Label, id) + " " + did + ".", nil
}

func (p *Portal) acmeNotice(_ context.Context, e postern.Event) (string, error) {
	switch key := called(e.Details["label"], e.Object); e.Details["did"] {
	case postern.ACMEKeyMade:
		return "The ACME key " + key + " was added.", nil
	case postern.ACMEKeyEnabled:
		return "The ACME key " + key + " was enabled again, with its account.", nil
	case postern.ACMERolledOver:
		return "The ACME account " + key + " was given another key.", nil
	}
	return "", nil
}

// newMessage reports new credentials to their person.
func newMessage(c Config, who postern.Person, lines []string, now time.Time) Message {
	if more := len(lines) - noticeLines; more > 0 {
		lines = append(lines[:noticeLines:noticeLines], fmt.Sprintf("and %d more, at %s/events", more, c.URL))
	}
	return message(who.Email, "A new credential for "+c.Name, now.Add(noticeAge),
		"This was added for "+who.Name+", and grants access to "+c.Name+":",
		"    "+strings.Join(lines, "\n    "),
		"If you did not do this, an attacker may have your certificate or one of your keys. "+
			"Recover at once, which revokes and disables everything that was made with them, at",
		"    "+c.URL+"/recover",
		"or tell your administrator.")
}
