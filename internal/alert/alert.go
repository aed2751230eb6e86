// Package alert reports entries of the timeline by mail, to webhooks and to commands.
//
// A [Reporter] reads the timeline behind a cursor. What it concludes from entries, the
// messages to send and the new cursor are stored in one step, so that a reporter that is
// killed goes on where it stopped, and several servers of one database report each entry
// once. A message stays until it was delivered: it is delivered at least once.
package alert

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/webhook"
)

// Alert says which entries are reported, and to whom.
type Alert struct {
	Name string
	// When is an expression over the entry, in the language of rules, see [Variables].
	// "" is that of the ready-made alert of this name.
	When string
	// Count and Within report once so many matched within this time, by the entries' own
	// counts. Zero: each is reported.
	Count  int64
	Within time.Duration
	// Every is the least time between two messages; what matches meanwhile is counted in
	// the next. Zero is that of the ready-made alert, or [DefaultEvery].
	Every time.Duration
	To    []Receiver
}

// DefaultEvery is the least time between two messages of an alert.
const DefaultEvery = 5 * time.Minute

// Receiver is who gets a message: one of its fields is set.
type Receiver struct {
	Mail    string           `json:"mail,omitempty"`    // address
	Webhook *webhook.Webhook `json:"webhook,omitempty"` // HTTP receiver
	Command []string         `json:"command,omitempty"` // program, an absolute path, and its arguments
}

// String names the receiver, without the secrets that a URL may have.
func (r Receiver) String() string {
	switch {
	case r.Webhook != nil:
		u, err := url.Parse(r.Webhook.URL)
		if err != nil {
			return "webhook"
		}
		return "webhook " + u.Host
	case len(r.Command) > 0:
		return "command " + r.Command[0]
	}
	return "mail " + r.Mail
}

// Message is what one receiver gets about one or more entries.
type Message struct {
	ID    string        `json:"id"`
	Alert string        `json:"alert"`
	To    Receiver      `json:"to"`
	Event postern.Event `json:"event"` // the last that matched
	Text  string        `json:"text"`  // of it, in words
	Count int64         `json:"count"` // what matched since the message before

	Queued time.Time `json:"queued"`
	Of     int       `json:"of"` // messages about the same, one for each receiver
	Tries  int       `json:"-"`
}

// Validate reports what is wrong with an alert, but for its expression.
func (a Alert) Validate() error {
	bad := func(format string, args ...any) *postern.Error {
		return postern.Errorf(postern.Invalid, "alert "+a.Name+": "+format, args...)
	}
	switch {
	case !postern.ValidName(a.Name):
		return postern.Errorf(postern.Invalid, "%q is not a name for an alert", a.Name).
			WithHint("a name has letters, digits and dashes")
	case a.When == "":
		return bad("there is no ready-made alert of this name, so it needs an expression: when").
			WithHint("the ready-made ones are %s", names(Ready))
	case len(a.To) == 0:
		return bad("it needs a receiver: mail, webhook or command")
	case a.Count < 0 || a.Within < 0 || a.Every < 0 || (a.Count == 0) != (a.Within == 0):
		return bad("a count is above 0, and within a time")
	}
	for _, r := range a.To {
		if err := r.validate(); err != nil {
			return bad("%w", err)
		}
	}
	return nil
}

func (r Receiver) validate() error {
	switch {
	case r.Webhook != nil:
		return r.Webhook.Validate()
	case len(r.Command) > 0 && !filepath.IsAbs(r.Command[0]):
		return postern.Errorf(postern.Invalid, "the command %q is not an absolute path", r.Command[0])
	case len(r.Command) > 0:
		return nil
	}
	_, err := postern.CleanEmail(r.Mail)
	return err
}

// names returns the names of alerts, for a hint.
func names(list []Alert) string {
	var all []string
	for _, a := range list {
		all = append(all, a.Name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
