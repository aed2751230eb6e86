package portal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/console"
)

// task is something that an administrator should look at: what it is, since when, and where
// it is fixed, on a page or by what is to be done.
type task struct {
	What  string
	Since time.Time // zero if it is not known
	Entry int64     // index of the timeline's entry; 0: none
	Path  string    // "" if no page fixes it
	Do    string    // what to do
}

// nowPage is an administrator's first page.
func (p *Portal) nowPage(r *request) error {
	sessions, err := p.Sessions(r.Context())
	if err != nil {
		return err
	}
	slices.Reverse(sessions) // the newest first
	tasks, err := p.tasks(r.Context())
	if err != nil {
		return err
	}
	pace, err := p.Console.Pace(r.Context(), p.now())
	if err != nil {
		return err
	}
	day := p.now().Add(-24 * time.Hour)
	refusals, partial, err := p.Console.Refusals(r.Context(), day)
	if err != nil {
		return err
	}
	p.render(r, 200, "now", page{Title: "Now", Nav: "admin", Tab: "now", Data: map[string]any{
		"Tasks": tasks, "Sessions": showSessions(sessions[:min(len(sessions), maxShownSessions)]),
		"Open": len(sessions),
		"Pace": pace, "Refusals": showReasons(refusals[:min(len(refusals), maxShownReasons)]), "Partial": partial,
		"Refused": timelineURL(console.Query{}.With("outcome", "refused").With("since", day.Format(time.RFC3339))),
		"Hour":    timelineURL(console.Query{}.With("since", p.now().Add(-time.Hour).Format(time.RFC3339))),
		"Day":     timelineURL(console.Query{}.With("since", day.Format(time.RFC3339))),
	}})
	return nil
}

// How many sessions and reasons the page shows.
const (
	maxShownSessions = 100
	maxShownReasons  = 12
)

// tasks returns what an administrator should look at.
func (p *Portal) tasks(ctx context.Context) (list []task, err error) {
	findings, crowded, err := p.Console.Findings(ctx, p.now())
	if err != nil {
		return nil, err
	}
	for _, e := range findings {
		list = append(list, taskOf(e))
	}
	for _, kind := range crowded {
		list = append(list, task{
			What: "So many entries of " + kind + " were written that older ones are not looked at",
			Path: timelineURL(console.Query{}.With("kind", kind)), Do: "See which host writes them",
		})
	}
	hosts, err := p.Hosts.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		for _, wrong := range h.Wrong {
			list = append(list, task{What: h.Name + ": " + wrong, Path: hostPath(h.Name), Do: "Look at the host"})
		}
	}
	asked, err := p.Store.AskedProofs(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range asked {
		list = append(list, task{
			What: a.Person + " requests the name " + a.Name, Since: a.Asked, Path: "/admin/names",
			Do: "Allow or refuse",
		})
	}
	unsent, err := p.Store.Unsent(ctx)
	if unsent > 0 {
		list = append(list, task{
			What: fmt.Sprintf("Mail that could not be sent and is tried again: %d", unsent),
			Do:   "Check the mail server in the configuration, and whether it answers.",
		})
	}
	return list, err
}

func hostPath(name string) string { return "/admin/hosts/" + name }

// remedies say what to do about what a check finds.
var remedies = map[string]string{
	postern.EventCheckCA: "Make its successor: postern ca root new for a root, postern ca intermediate new for " +
		"what is below.",
	postern.EventCheckAgent:    "Look at the agent on that host: systemctl status postern-agent.",
	postern.EventCheckTimeline: "Verify the timeline with postern log verify, and restore a backup if it was changed.",
	postern.EventCheckDisk:     "Make room on the disk, or move old entries: postern log archive.",
	postern.EventCheckSSH:      "See what weakens it with postern ssh check, and fix it with postern ssh config.",
	postern.EventCheckCodes:    "See postern doctor. If the database was restored: postern otp restored.",
	postern.EventCheckWitness:  "Look at the witness, and whether this server reaches it.",
}

// taskOf returns the task that a check has found.
func taskOf(e postern.Event) task {
	kind, _ := postern.EventKindOf(e.Kind)
	what := kind.Title
	if e.Object != "" {
		what += " (" + e.Object + ")"
	}
	if e.Host != "" {
		what += " on " + e.Host
	}
	return task{
		What: what + ": " + cmp.Or(e.Reason, "not in order"), Since: e.Time, Entry: e.Index, Do: remedies[e.Kind],
	}
}

// shownSession is an open session for the page.
type shownSession struct {
	console.Session
	PersonPath, HostPath, EntryPath string
}

func showSessions(sessions []console.Session) (list []shownSession) {
	for _, s := range sessions {
		list = append(list, shownSession{
			Session: s, PersonPath: "/admin/people/" + s.Person,
			HostPath:  pathOf(console.Part{Of: console.Host, ID: s.Host}),
			EntryPath: fmt.Sprintf("%s/%d", timelinePath, s.Entry),
		})
	}
	return list
}

// shownReason is why something was refused, with the timeline of it.
type shownReason struct {
	Title, Reason, Path string
	N                   int64
}

func showReasons(reasons []console.Reason) (list []shownReason) {
	for _, r := range reasons {
		kind, _ := postern.EventKindOf(r.Kind)
		list = append(list, shownReason{cmp.Or(kind.Title, r.Kind), r.Reason, timelineURL(r.Query), r.N})
	}
	return list
}
