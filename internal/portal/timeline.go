package portal

import (
	"context"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/chart"
	"github.com/postern-project/postern/internal/console"
	"github.com/postern-project/postern/timeline"
)

const timelinePath = "/admin/timeline"

// shownLine is a line of the timeline for a page and for its script.
type shownLine struct {
	Index    int64             `json:"index"`
	Time     time.Time         `json:"time"`
	When     string            `json:"when"` // Time for people to read
	Outcome  postern.Outcome   `json:"outcome"`
	Strength timeline.Strength `json:"strength,omitempty"`
	Parts    []shownPart       `json:"parts"`
	Here     bool              `json:"-"` // the entry that the page is about
}

// shownPart is a piece of its sentence, which leads to Path if that is not "".
type shownPart struct {
	Text string `json:"text"`
	Path string `json:"path,omitempty"`
}

func showLines(lines []console.Line) []shownLine {
	list := make([]shownLine, 0, len(lines))
	for _, l := range lines {
		s := shownLine{Index: l.Index, Time: l.Time, When: moment(l.Time), Outcome: l.Outcome, Strength: l.Strength}
		for _, p := range l.Sentence {
			s.Parts = append(s.Parts, shownPart{p.Text, pathOf(p)})
		}
		list = append(list, s)
	}
	return list
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// pathOf returns the page about what a part of a sentence names.
func pathOf(p console.Part) string {
	switch p.Of {
	case "":
		return ""
	case console.Person:
		return "/admin/people/" + url.PathEscape(p.ID)
	case console.Host:
		return hostPath(url.PathEscape(p.ID))
	case string(postern.X509Certificate):
		return "/certificates/" + url.PathEscape(p.ID)
	case console.Machine, console.Address:
		return timelineURL(console.Query{}.With(p.Of, p.ID))
	}
	return timelineURL(console.Query{}.With("link", p.Of+"="+p.ID))
}

func timelineURL(q console.Query) string {
	if v := q.Values().Encode(); v != "" {
		return timelinePath + "?" + v
	}
	return timelinePath
}

// history is the newest part of the timeline of one thing, and where all of it is.
type history struct {
	Lines []shownLine
	All   string
}

// maxHistory is how many entries the page of one thing shows.
const maxHistory = 20

func (p *Portal) history(ctx context.Context, q console.Query) (history, error) {
	found, err := p.Console.Page(ctx, q)
	return history{showLines(found.Lines[:min(len(found.Lines), maxHistory)]), timelineURL(q)}, err
}

// chip is a condition of the page's query, with where it leads without it.
type chip struct{ Name, Value, Without string }

func (p *Portal) timelinePage(r *request) error {
	q, err := console.ParseQuery(r.URL.Query())
	if err != nil {
		return err
	}
	next, err := p.Console.Log.LogSize(r.Context())
	if err != nil {
		return err
	}
	first := q
	if q.Before == 0 {
		first.Before = next // what comes from there on is sent to the live page
	}
	found, err := p.Console.Page(r.Context(), first)
	if err != nil {
		return err
	}
	h, err := p.Console.Histogram(r.Context(), q, p.now())
	if err != nil {
		return err
	}
	data := map[string]any{
		"Lines": showLines(found.Lines), "Partial": found.Partial, "Q": q, "Chips": chips(q),
		"Kinds": timeline.Kinds(),
		"Chart": drawHistogram(h, q), "Columns": tableOf(h, q), "Histogram": h, "Paged": q.Before > 0,
		"Newest": timelineURL(q.With("before", "")),
	}
	if found.Older > 0 {
		older := q
		older.Before = found.Older
		data["Older"] = timelineURL(older)
	}
	if q.Before == 0 && q.Until.IsZero() {
		data["Live"] = livePath(q, next)
	}
	p.render(r, 200, "timeline", page{Title: "Timeline", Nav: "admin", Tab: "timeline", Data: data})
	return nil
}

// livePath returns where the entries come from that a query selects from an index on.
func livePath(q console.Query, next int64) string {
	v := q.Values()
	v.Set("next", strconv.FormatInt(next, 10))
	return timelinePath + "/live?" + v.Encode()
}

func chips(q console.Query) (list []chip) {
	for _, c := range q.Conditions() {
		list = append(list, chip{c.Name, c.Value, timelineURL(q.With(c.Name, ""))})
	}
	return list
}

// countedColumn is a column of the histogram for the table beside it.
type countedColumn struct {
	When, Link string
	console.Counts
}

// tableOf returns the columns that have anything.
func tableOf(h console.Histogram, q console.Query) (list []countedColumn) {
	for i, c := range h.Columns {
		if c.Sum() > 0 {
			at := h.From.Add(time.Duration(i) * h.Step)
			list = append(list, countedColumn{moment(at), brush(q, at, h.Step), c})
		}
	}
	return list
}

// brush returns the timeline of one column.
func brush(q console.Query, at time.Time, step time.Duration) string {
	return timelineURL(q.With("since", at.Format(time.RFC3339)).With("until", at.Add(step).Format(time.RFC3339)))
}

func drawHistogram(h console.Histogram, q console.Query) template.HTML {
	c := chart.Columns{
		From: h.From, Step: h.Step,
		Label: fmt.Sprintf("%d entries over time, from %s to %s", h.Entries, moment(h.From),
			moment(h.From.Add(time.Duration(len(h.Columns))*h.Step))),
	}
	for i, n := range h.Columns {
		at := h.From.Add(time.Duration(i) * h.Step)
		c.Columns = append(c.Columns, chart.Column{
			Title: fmt.Sprintf("%s: %d ok, %d refused, %d failed, %d unknown", moment(at), n.OK, n.Refused, n.Failed,
				n.Unknown),
			Link: brush(q, at, h.Step),
			Parts: []chart.Part{
				{N: n.OK},
				{Class: "refused", N: n.Refused},
				{Class: "failed", N: n.Failed},
				{Class: "open", N: n.Unknown},
			},
		})
	}
	return c.HTML(90)
}

// entryIndex returns the index of the entry in the request's path.
func entryIndex(r *request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil || n < 0 {
		return 0, postern.Errorf(postern.NotFound, "There is no such entry.")
	}
	return n, nil
}

// entryPage shows an entry with what it rests on.
func (p *Portal) entryPage(r *request) error {
	index, err := entryIndex(r)
	if err != nil {
		return err
	}
	e, err := p.Console.Entry(r.Context(), index)
	if err != nil {
		return err
	}
	kind, _ := postern.EventKindOf(e.Kind)
	joined := showLines(e.Joined)
	for i := range joined {
		joined[i].Here = joined[i].Index == index
	}
	p.render(r, 200, "entry", page{
		Title: fmt.Sprintf("Entry %d", index), Nav: "admin", Tab: "timeline",
		Data: map[string]any{
			"E": e, "Line": showLines([]console.Line{e.Line})[0], "Kind": orDefault(kind.Title, e.Kind),
			"Joined": joined,
			"Lanes":  e.Lanes.HTML(), "Known": strengthWords[e.Line.Strength], "Links": linksOf(e.Event),
			"Cosigned": cosigned(e),
		},
	})
	return nil
}

// strengthWords say how well it is known who did what an entry reports.
var strengthWords = map[timeline.Strength]string{
	"":              "This server saw it itself.",
	timeline.Exact:  "The host reports it, and this server checked a code for that very sign-in.",
	timeline.Strong: "The host reports it, and that it was done in a sign-in or session of this person.",
	timeline.Guess:  "The host reports it, and only the account's name says who it was.",
}

// shownLink is a link of an entry, with the timeline of all that has it.
type shownLink struct{ Kind, ID, Path string }

func linksOf(e postern.Event) (list []shownLink) {
	for _, l := range e.Links {
		list = append(list, shownLink{l.Kind, l.ID, timelineURL(console.Query{}.With("link", l.Kind+"="+l.ID))})
	}
	return list
}

// cosigned returns the witnesses that have cosigned a timeline with the entry.
func cosigned(e console.Entry) (list []timeline.Witnessed) {
	for _, w := range e.Witnesses {
		if w.Size > e.Index {
			list = append(list, w)
		}
	}
	return list
}

// entryProof answers with the proof that the timeline contains an entry, which the
// command line checks without this server.
func (p *Portal) entryProof(r *request) error {
	index, err := entryIndex(r)
	if err != nil {
		return err
	}
	proof, err := p.Console.Log.ProveEvent(r.Context(), index)
	if err != nil {
		return err
	}
	r.w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="entry-%d.proof"`, index))
	writeJSON(r.w, 200, proof)
	return nil
}
