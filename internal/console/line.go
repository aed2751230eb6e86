package console

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Line is an entry of the timeline as it is shown: a sentence that leads to what it
// mentions.
type Line struct {
	Index    int64
	Time     time.Time
	Kind     string
	Outcome  postern.Outcome
	Strength timeline.Strength // how well it is known who did it; "" if the server saw it
	Sentence []Part
}

// Part is a piece of a sentence.
type Part struct {
	Text string
	Of   string // what it names: Person, Host, Machine, Address or a CredentialKind; "" is plain text
	ID   string
}

// What a part may name, besides credentials.
const (
	Person  = "person"
	Host    = "host"
	Machine = "machine"
	Address = "address"
)

// newLine returns the line of an entry, by the entries joined with it.
func newLine(e postern.Event, joined []postern.Event) Line {
	person := e.Person
	for _, j := range joined {
		if person == "" && j.Outcome == postern.OK {
			person = j.Person
		}
	}
	return Line{
		Index: e.Index, Time: e.Time, Kind: e.Kind, Outcome: e.Outcome,
		Strength: timeline.StrengthOf(e, joined, person),
		Sentence: split(timeline.Sentence(e, joined), mentions(e, joined, person)),
	}
}

// Text returns the sentence.
func (l Line) Text() string {
	var b strings.Builder
	for _, p := range l.Sentence {
		b.WriteString(p.Text)
	}
	return b.String()
}

// mentions returns what the sentence of an entry may name, the longest first.
func mentions(e postern.Event, joined []postern.Event, person string) (list []Part) {
	add := func(of, id string) {
		p := Part{Text: id, Of: of, ID: id}
		if id != "" && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	add(Person, person)
	add(Person, e.Details["by"])
	add(Host, e.Host)
	if strings.HasPrefix(e.Kind, "host.") || e.Kind == postern.EventCheckHost {
		add(Host, e.Object)
	}
	if e.Kind == postern.EventLibvirtCall {
		add(Machine, e.Object)
	}
	for _, j := range slices.Concat([]postern.Event{e}, joined) {
		add(Address, j.Address)
		for _, l := range j.Links {
			if slices.Contains(credentials, postern.CredentialKind(l.Kind)) {
				add(l.Kind, l.ID)
			}
		}
	}
	if strings.HasPrefix(e.Kind, "cert.") {
		add(string(postern.X509Certificate), e.Object)
	}
	slices.SortStableFunc(list, func(a, b Part) int { return cmp.Compare(len(b.Text), len(a.Text)) })
	return list
}

// credentials are the kinds whose identifiers a sentence names.
var credentials = []postern.CredentialKind{
	postern.X509Certificate, postern.SSHCertificate, postern.SSHKey, postern.YubiKey, postern.TOTP, postern.HOTP,
	postern.RecoveryCode, postern.BackupCode,
}

// split cuts a sentence into what it names and the text between.
func split(sentence string, mentions []Part) (parts []Part) {
	plain := 0 // where the text begins that is not among the parts yet
	for at := 0; at < len(sentence); {
		p := mentionAt(sentence, at, mentions)
		if p == nil {
			_, n := utf8.DecodeRuneInString(sentence[at:])
			at += n
			continue
		}
		if plain < at {
			parts = append(parts, Part{Text: sentence[plain:at]})
		}
		parts = append(parts, *p)
		at += len(p.Text)
		plain = at
	}
	if plain < len(sentence) {
		parts = append(parts, Part{Text: sentence[plain:]})
	}
	return parts
}

// mentionAt returns what a sentence names at a place, as a word of its own; nil if nothing.
func mentionAt(sentence string, at int, mentions []Part) *Part {
	before, _ := utf8.DecodeLastRuneInString(sentence[:at])
	if inWord(before) {
		return nil
	}
	for i := range mentions {
		rest, ok := strings.CutPrefix(sentence[at:], mentions[i].Text)
		if !ok {
			continue
		}
		after, n := utf8.DecodeRuneInString(rest)
		if after == '.' || after == ':' { // ends a sentence, or goes on in a name or an address
			after, _ = utf8.DecodeRuneInString(rest[n:])
		}
		if !inWord(after) {
			return &mentions[i]
		}
	}
	return nil
}

func inWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_' || r == '/' ||
		r == '@')
}
