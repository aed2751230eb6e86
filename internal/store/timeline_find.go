package store

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Events returns those of [Timeline.Events] that are in the database. What a filter names is found by an
// index of the entries (person, address, object, link), or else by the blocks that
// may have it (time, kind, outcome, host): see [blockWidth].
func (tx *Tx) Events(ctx context.Context, f timeline.Filter) ([]postern.Event, error) {
	q, err := tx.findQuery(ctx, f)
	if err != nil {
		return nil, err
	}
	var events []postern.Event
	err = tx.spans(ctx, f, q.indexed, func(s span) (more bool, err error) {
		events, err = tx.eventsIn(ctx, f, q, s, events)
		return f.Limit == 0 || len(events) < f.Limit, err
	})
	if f.Last {
		slices.Reverse(events)
	}
	return events, err
}

// eventsIn adds the events of a span that match, until there are as many as the filter
// asks for.
func (tx *Tx) eventsIn(
	ctx context.Context, f timeline.Filter, q findQuery, s span, events []postern.Event,
) ([]postern.Event, error) {
	if f.Before > 0 {
		s.to = min(s.to, f.Before)
	}
	query, args := q.in(s, f.Last)
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k kept
		if err := rows.Scan(k.fields()...); err != nil {
			return nil, err
		}
		e, err := timeline.Decode([]byte(k.text()))
		if err != nil || e.Index != k.index {
			return nil, postern.Errorf(postern.Internal, "entry %d of the timeline is damaged", k.index).
				WithHint("verify the timeline")
		}
		if !f.Match(e) {
			continue
		}
		if events = append(events, e); len(events) == f.Limit {
			break
		}
	}
	return events, rows.Err()
}

// span is a run of indices, the first and the one behind the last.
type span struct{ from, to int64 }

// findQuery is the query for every entry of a span that may match: the columns narrow
// it down, and [timeline.Filter.Match] decides.
type findQuery struct {
	where   []string
	args    []any
	indexed bool // an index of the entries finds them
	linked  bool // which is that of links
	sorted  bool // and they are few, so that the query sorts them
}

func (q *findQuery) and(condition string, args ...any) {
	marks := make([]any, len(args))
	for i, arg := range args {
		q.args = append(q.args, arg)
		marks[i] = len(q.args)
	}
	q.where = append(q.where, fmt.Sprintf(condition, marks...))
}

// in returns the query for one span.
func (q *findQuery) in(s span, last bool) (query string, args []any) {
	from, index := `log_events e`, `e.idx`
	switch {
	case q.linked:
		from, index = `log_links l JOIN log_events e ON e.idx = l.idx`, `l.idx`
	case q.sorted:
		index += ` + 0` // so that no planner reads all entries in their order
	}
	n := len(q.args)
	query = fmt.Sprintf(`SELECT %s FROM %s WHERE %s >= $%d AND %s < $%d`, keptColumns, from, index, n+1, index, n+2)
	for _, condition := range q.where {
		query += " AND " + condition
	}
	query += ` ORDER BY ` + index
	if last {
		query += ` DESC`
	}
	return query, append(slices.Clone(q.args), s.from, s.to)
}

// findQuery returns the query for what a filter selects.
func (tx *Tx) findQuery(ctx context.Context, f timeline.Filter) (findQuery, error) {
	var q findQuery
	q.andBlocks(f)
	bytewise := tx.db.backend.bytewise()
	if f.Person != "" {
		q.and(`e.person = $%d`, f.Person)
	}
	network := strings.Contains(f.Address, "/")
	if f.Address != "" && !network {
		q.and(`e.address`+bytewise+` = $%d`, f.Address)
	}
	beginning, begins := strings.CutSuffix(f.Object, "*")
	if f.Object != "" && !begins {
		q.and(`e.object`+bytewise+` = $%d`, f.Object)
	}
	if q.linked = f.Link != (postern.Link{}); q.linked {
		q.and(`l.kind = $%d AND l.id = $%d`, f.Link.Kind, f.Link.ID)
	}
	q.indexed = f.Person != "" || f.Address != "" && !network || f.Object != "" && !begins || q.linked
	switch {
	case q.indexed:
	case network:
		return q, tx.andPrefixes(ctx, &q, "address", networkPrefixes(f.Address))
	case begins:
		return q, tx.andPrefixes(ctx, &q, "object", []string{beginning})
	}
	return q, nil
}

// andBlocks adds the conditions that choose blocks, too.
func (q *findQuery) andBlocks(f timeline.Filter) {
	if f.Kind != "" {
		q.and(`(e.kind = $%d OR substr(e.kind, 1, `+strconv.Itoa(utf8.RuneCountInString(f.Kind)+1)+`) = $%d)`,
			f.Kind, f.Kind+".")
	}
	if f.Outcome != "" {
		q.and(`e.outcome = $%d`, string(f.Outcome))
	}
	if f.Host != "" {
		q.and(`e.line LIKE $%d`, `%"host":"`+hostLike(f.Host)+`%`)
	}
	if !f.Since.IsZero() {
		q.and(`e.time >= $%d`, micros(f.Since))
	}
	if !f.Until.IsZero() {
		q.and(`e.time < $%d`, micros(f.Until))
	}
}

// hostLike returns the end of a pattern for what an entry says of its host.
func hostLike(host string) string {
	if strings.ContainsFunc(host, func(r rune) bool {
		return r != '-' && r != '.' && !('0' <= r && r <= '9') && !('A' <= r && r <= 'Z') && !('a' <= r && r <= 'z')
	}) {
		return "" // JSON or LIKE may write it otherwise
	}
	return host + `"`
}

// fewEntries is up to how many entries are found by the beginning of a column and
// sorted then. Where there are more, reading the entries in their order meets enough.
const fewEntries = 20_000

// andPrefixes adds that a column begins with one of some texts.
func (tx *Tx) andPrefixes(ctx context.Context, q *findQuery, column string, prefixes []string) error {
	if slices.Contains(prefixes, "") {
		return nil
	}
	const last = "\U0010FFFF" // no text has anything behind it
	text := `e.` + column + tx.db.backend.bytewise()
	either := make([]string, len(prefixes))
	var bounds []any
	for i, prefix := range prefixes {
		either[i] = text + ` >= $%d AND ` + text + ` < $%d`
		bounds = append(bounds, prefix, prefix+last)
	}
	condition := "(" + strings.Join(either, " OR ") + ")"
	var few findQuery
	few.and(condition, bounds...)
	var n int
	if err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT 1 FROM log_events e
		WHERE %s LIMIT %d) AS found`, few.where[0], fewEntries+1), few.args...).Scan(&n); err != nil {
		return err
	}
	if n > fewEntries {
		return nil
	}
	q.indexed = true
	if q.sorted = tx.db.Shared(); !q.sorted {
		// SQLite reads the index alone, and then entries until there are enough.
		condition = `e.idx IN (SELECT e.idx FROM log_events e WHERE ` + condition + `)`
	}
	q.and(condition, bounds...)
	return nil
}

// networkPrefixes returns what the text of each address of a network begins with.
func networkPrefixes(network string) []string {
	p, err := netip.ParsePrefix(network)
	if err != nil {
		return []string{""}
	}
	p = p.Masked()
	if p.Addr().Is4() {
		octets := strings.SplitAfter(p.Addr().String(), ".")[:min(p.Bits()/8, 3)]
		v4 := strings.Join(octets, "")
		return []string{v4, "::ffff:" + v4}
	}
	prefix := ""
	b := p.Addr().As16()
	for i := range p.Bits() / 16 { // up to a zero, which may be part of a ::
		n := int(b[2*i])<<8 | int(b[2*i+1])
		if n == 0 || i == 7 {
			break
		}
		prefix += fmt.Sprintf("%x:", n)
	}
	return []string{prefix}
}
