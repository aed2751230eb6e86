package timeline

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// The bounds of an entry, in bytes and numbers. What is longer is cut: an event
// that contains foreign bytes must still be written.
const (
	maxText    = 2048
	maxName    = 256
	maxLinks   = 32
	maxDetails = 64
	maxEntry   = 1<<16 - 1 - 32 // in a bundle of C2SP's tlog-tiles, whatever index it gets
)

// Clean returns the event as it can be kept: valid UTF-8 without control
// characters, bounded, its time in UTC microseconds.
func Clean(e postern.Event) postern.Event {
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.Kind, e.Host = clean(e.Kind, maxName), clean(e.Host, maxName)
	e.Person, e.Address = clean(e.Person, maxName), clean(e.Address, maxName)
	e.Outcome = postern.Outcome(clean(string(e.Outcome), maxName))
	e.Object, e.Reason = clean(e.Object, maxText), clean(e.Reason, maxText)
	links := make([]postern.Link, 0, min(len(e.Links), maxLinks))
	seen := map[postern.Link]bool{}
	for _, l := range e.Links {
		l = CleanLink(l)
		if len(links) < maxLinks && !seen[l] && l.Kind != "" && l.ID != "" {
			seen[l] = true
			links = append(links, l)
		}
	}
	e.Links = nil
	if len(links) > 0 {
		e.Links = links
	}
	e.Details = cleanDetails(e.Details)
	return fit(e)
}

// fit leaves out details, then links, until the entry is not too long.
func fit(e postern.Event) postern.Event {
	if length(e) <= maxEntry/4 { // most are: their JSON is not made twice
		return e
	}
	for {
		entry, err := Encode(e)
		switch {
		case err != nil || len(entry) <= maxEntry:
			return e
		case len(e.Details) > 0:
			keys := slices.Sorted(maps.Keys(e.Details))
			delete(e.Details, keys[len(keys)-1])
		case len(e.Links) > 0:
			e.Links = e.Links[:len(e.Links)/2]
		default:
			return e
		}
	}
}

// length returns how many bytes the texts of an event have, of which JSON makes at most
// twice as many.
func length(e postern.Event) int {
	n := len(e.Kind) + len(e.Host) + len(e.Person) + len(e.Address) + len(e.Outcome) + len(e.Object) + len(e.Reason)
	for _, l := range e.Links {
		n += len(l.Kind) + len(l.ID) + 32 // their keys
	}
	for k, v := range e.Details {
		n += len(k) + len(v) + 8
	}
	return n
}

// CleanLink returns the link as [Clean] keeps it.
func CleanLink(l postern.Link) postern.Link {
	return postern.Link{Kind: clean(l.Kind, maxName), ID: clean(l.ID, maxName)}
}

func cleanDetails(details map[string]string) map[string]string {
	if len(details) == 0 {
		return nil
	}
	kept := make(map[string]string, min(len(details), maxDetails))
	for _, k := range slices.Sorted(maps.Keys(details)) {
		if len(kept) < maxDetails {
			kept[clean(k, maxName)] = clean(details[k], maxText)
		}
	}
	return kept
}

// clean cuts s to n bytes and replaces what is not printable UTF-8.
func clean(s string, n int) string {
	s = s[:min(len(s), n)]
	if plain(s) {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// plain reports whether s is printable ASCII, which most texts are.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Encode returns the entry of an event: its JSON without a newline, keys in a
// fixed order, so that one event has one encoding.
func Encode(e postern.Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode returns the event of an entry.
func Decode(entry []byte) (postern.Event, error) {
	var e postern.Event
	err := json.Unmarshal(entry, &e)
	return e, err
}
