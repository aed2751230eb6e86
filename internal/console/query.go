package console

import (
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Query is what a page of the timeline shows. Its text is the query of a URL, so that each
// is a link; the zero Query is all of the timeline. Filter's Limit and Last are not part
// of it.
type Query struct {
	timeline.Filter
	Machine  string            // a virtual machine, by its name or UUID
	Words    string            // all of which the entry has somewhere, in any case
	Strength timeline.Strength // how well it is known who did it
}

// fields are what a query says besides Before and From, in the order in which a page names
// them.
var fields = []struct {
	name string
	of   func(*Query) *string
}{
	{"person", func(q *Query) *string { return &q.Person }},
	{"host", func(q *Query) *string { return &q.Host }},
	{"machine", func(q *Query) *string { return &q.Machine }},
	{"kind", func(q *Query) *string { return &q.Kind }},
	{"outcome", func(q *Query) *string { return (*string)(&q.Outcome) }},
	{"strength", func(q *Query) *string { return (*string)(&q.Strength) }},
	{"address", func(q *Query) *string { return &q.Address }},
	{"object", func(q *Query) *string { return &q.Object }},
	{"words", func(q *Query) *string { return &q.Words }},
}

// maxWords bounds what a query searches for, in bytes.
const maxWords = 200

// ParseQuery reads the query of a URL.
func ParseQuery(v url.Values) (q Query, err error) {
	for _, f := range fields {
		text := strings.TrimSpace(v.Get(f.name))
		if !printable(text) {
			return q, errUnprintable
		}
		*f.of(&q) = text
	}
	if text := v.Get("link"); text != "" {
		if q.Link, err = timeline.ParseLink(text); err != nil {
			return q, err
		}
		if !printable(text) {
			return q, errUnprintable
		}
	}
	for name, index := range map[string]*int64{"from": &q.From, "before": &q.Before} {
		if text := v.Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return q, postern.Errorf(postern.Invalid, "%q is not the number of an entry", text)
			}
			*index = n
		}
	}
	for name, t := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if *t, err = parseTime(v.Get(name)); err != nil {
			return q, err
		}
	}
	switch {
	case len(q.Words) > maxWords:
		return q, postern.Errorf(postern.Invalid, "more than %d letters are searched for", maxWords)
	case q.Strength != "" && q.Strength != timeline.Exact && q.Strength != timeline.Strong &&
		q.Strength != timeline.Guess:
		return q, postern.Errorf(postern.Invalid, "%q is no strength", q.Strength).
			WithHint("exact, strong or guess")
	case q.Machine != "" && !q.leavesRest():
		return q, postern.Errorf(postern.Invalid, "of a virtual machine there are only calls to libvirt").
			WithHint("Take out the machine, or the kind, object or link.")
	}
	return q, q.filter().Validate()
}

var errUnprintable = postern.Errorf(postern.Invalid, "what is looked for is not text")

// printable reports whether an entry may have a text: no database finds another one, and
// PostgreSQL takes none with a NUL.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// parseTime reads a time as RFC 3339 has it, or as forms have it, in UTC: to the second,
// the minute or the day.
func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	if text == "" {
		return time.Time{}, nil
	}
	return time.Time{}, postern.Errorf(postern.Invalid, "%q is not a time", text).
		WithHint("for example: 2006-01-02T15:04")
}

// Values returns the query as that of a URL.
func (q Query) Values() url.Values {
	v := url.Values{}
	for _, f := range fields {
		if text := *f.of(&q); text != "" {
			v.Set(f.name, text)
		}
	}
	if q.Link.Kind != "" {
		v.Set("link", q.Link.Kind+"="+q.Link.ID)
	}
	for name, index := range map[string]int64{"from": q.From, "before": q.Before} {
		if index > 0 {
			v.Set(name, strconv.FormatInt(index, 10))
		}
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format("2006-01-02T15:04:05"))
		}
	}
	return v
}

// With returns the query with one of its parts set, "" taken out, and from its newest entry.
// A part that cannot be read is left as it is.
func (q Query) With(name, value string) Query {
	v := q.Values()
	v.Del("before")
	v.Set(name, value)
	if changed, err := ParseQuery(v); err == nil {
		return changed
	}
	return q
}

// Condition is one part of a query.
type Condition struct{ Name, Value string }

// Field is a part of a query in a form.
type Field struct{ Name, Label, Value string }

// Field returns a part of the query for a form.
func (q Query) Field(name, label string) Field { return Field{name, label, q.Values().Get(name)} }

// Conditions returns the parts that choose entries, in the order in which a page names them.
func (q Query) Conditions() (list []Condition) {
	v := q.Values()
	for _, f := range fields {
		if v.Has(f.name) {
			list = append(list, Condition{f.name, v.Get(f.name)})
		}
	}
	for _, name := range []string{"link", "since", "until", "from"} {
		if v.Has(name) {
			list = append(list, Condition{name, v.Get(name)})
		}
	}
	return list
}

// filter returns the part of the query that the timeline itself answers.
func (q Query) filter() timeline.Filter {
	f := q.Filter
	if q.Machine != "" {
		f.OnDomain(q.Machine)
	}
	return f
}

// leavesRest reports whether the filter for a machine also selects by all else that the query
// names.
func (q Query) leavesRest() bool {
	f := q.filter()
	return q.Object == "" && (q.Link == postern.Link{} || q.Link == f.Link) &&
		(q.Kind == "" || q.Kind == f.Kind || strings.HasPrefix(f.Kind, q.Kind+"."))
}

// judged reports whether entries that the filter selects must be looked at one by one.
func (q Query) judged() bool { return q.Words != "" || q.Strength != "" }

// hasWords reports whether an entry has all words of the query.
func (q Query) hasWords(e postern.Event) bool {
	if q.Words == "" {
		return true
	}
	kind, _ := postern.EventKindOf(e.Kind)
	var b strings.Builder
	for _, s := range []string{
		e.Kind, kind.Title, kind.OK, kind.NotOK, string(e.Outcome), e.Host, e.Person, e.Address, e.Object, e.Reason,
	} {
		b.WriteString(s + "\n")
	}
	for k, v := range e.Details {
		b.WriteString(k + " " + v + "\n")
	}
	for _, l := range e.Links {
		b.WriteString(l.Kind + " " + l.ID + "\n")
	}
	text := strings.ToLower(b.String())
	for word := range strings.FieldsSeq(strings.ToLower(q.Words)) {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}
