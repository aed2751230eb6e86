package store

import (
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// The column line has of an entry what its other columns do not say, which is a third of
// it: an entry is kept on disk for ten years. The exact text is made of both again, since
// the timeline's tree is over that.
//
// An entry that cannot be made again so is kept whole. That begins with "{", and what is
// left of one never does: so entries of earlier versions are read, too.

// kept is an entry as its columns have it.
type kept struct {
	index                                  int64
	time                                   int64 // microseconds
	kind, outcome, person, address, object string
	line                                   string
}

// keptColumns are the columns of an entry, in the order of [kept.fields].
const keptColumns = `e.idx, e.time, e.kind, e.outcome, e.person, e.address, e.object, e.line`

// fields are what the columns are scanned into.
func (k *kept) fields() []any {
	return []any{&k.index, &k.time, &k.kind, &k.outcome, &k.person, &k.address, &k.object, &k.line}
}

// keep returns the columns of an entry.
func keep(e postern.Event, entry string) kept {
	k := kept{e.Index, micros(e.Time), e.Kind, string(e.Outcome), e.Person, e.Address, e.Object, entry}
	before, after := k.around()
	rest, ok := strings.CutPrefix(entry, before)
	host := hostIn(rest)
	rest, also := strings.CutPrefix(rest[len(host):], after)
	short := k
	short.line = host + shorten.Replace(rest) // the host stays: a query looks for it
	if !ok || !also || !k.plain() || short.text() != entry {
		return k
	}
	return short
}

// text returns the exact text of the entry. It is not the one that was written if a column
// was changed.
func (k *kept) text() string {
	if strings.HasPrefix(k.line, "{") {
		return k.line
	}
	before, after := k.around()
	rest := lengthen.Replace(k.line)
	host := hostIn(rest)
	return before + host + after + rest[len(host):]
}

// entry returns the entry with its columns.
func (k *kept) entry() timeline.Entry {
	return timeline.Entry{Text: k.text(), Event: postern.Event{
		Index: k.index, Time: fromMicros(k.time), Kind: k.kind, Outcome: postern.Outcome(k.outcome), Person: k.person,
		Address: k.address, Object: k.object,
	}}
}

// around returns what an entry has before and behind its host, as [timeline.Encode] writes
// it.
func (k *kept) around() (before, after string) {
	b := make([]byte, 0, 160)
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, k.index, 10)
	b = append(b, `,"time":"`...)
	b = fromMicros(k.time).AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","kind":"`+k.kind+`","outcome":"`+k.outcome+`"`...)
	n := len(b)
	for _, c := range [...]struct{ name, value string }{
		{"person", k.person}, {"address", k.address}, {"object", k.object},
	} {
		if c.value != "" {
			b = append(b, `,"`+c.name+`":"`+c.value+`"`...)
		}
	}
	return string(b[:n]), string(b[n:])
}

// plain reports whether JSON has the texts as they are, whatever writes it.
func (k *kept) plain() bool {
	for _, s := range [...]string{k.kind, k.outcome, k.person, k.address, k.object} {
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
				return false
			}
		}
	}
	return true
}

// hostIn returns the part of an entry that names its host, if that is what it begins with.
func hostIn(rest string) string {
	const name = `,"host":"`
	if !strings.HasPrefix(rest, name) {
		return ""
	}
	end := strings.IndexByte(rest[len(name):], '"')
	return rest[:len(name)+end+1]
}

// shortened are texts that many entries have, each kept as one character that no JSON has.
// What is kept is read by this list: it may grow, and nothing else.
var shortened = []string{
	"\x01", `,"links":[{"kind":"`, "\x02", `","id":"`, "\x03", `"},{"kind":"`, "\x04", `"}]`, "\x05", `,"reason":"`,
	"\x06", `,"count":`, "\x07", `,"took":`, "\x08", `,"details":{"`, "\x0b", `":"`, "\x0c", `","`, "\x0e", `session`,
	"\x0f", `connection`, "\x10", `process`, "\x11", `login`, "\x12", `domain`, "\x13", `x509`, "\x14", `yubikey`,
	"\x15", `ssh-cert`, "\x16", `ssh-key`,
}

// lengthen and shorten turn what is kept into an entry's text, and back.
var lengthen, shorten = replacers()

func replacers() (*strings.Replacer, *strings.Replacer) {
	var back []string
	for i := 0; i < len(shortened); i += 2 {
		back = append(back, shortened[i+1], shortened[i])
	}
	return strings.NewReplacer(shortened...), strings.NewReplacer(back...)
}
