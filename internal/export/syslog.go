package export

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-project/postern"
)

// syslogTimeout bounds one batch.
const syslogTimeout = 30 * time.Second

// authpriv is the facility: what is about who may do what (RFC 5424, 6.2.1).
const authpriv = 10

// message returns an entry as an RFC 5424 message: APP-NAME is postern, MSGID the kind,
// sequenceId (7.3.1) the index and one, by which a receiver sees what it has twice or lacks.
// MSG is UTF-8 without a byte order mark.
func message(r record, host string) []byte {
	e := r.event
	return fmt.Appendf(nil, `<%d>1 %s %s postern - %s [meta sequenceId="%d"] %s`, priority(e),
		e.Time.UTC().Format(microseconds), printable(cmp.Or(e.Host, host), 255),
		printable(e.Kind, 32), e.Index%math.MaxInt32+1, r.text)
}

// localMessage returns an entry as syslog(3) writes it to a socket on this host.
func localMessage(r record) []byte {
	return fmt.Appendf(nil, "<%d>%s postern: %s", priority(r.event), r.event.Time.Local().Format(time.Stamp), r.text)
}

func priority(e postern.Event) int { return authpriv*8 + severity(e.Outcome) }

func severity(o postern.Outcome) int {
	switch o {
	case postern.OK:
		return 6 // informational
	case postern.Refused:
		return 4 // warning
	case postern.Failed:
		return 3 // error
	}
	return 5 // notice
}

// printable returns a header field: PRINTUSASCII, at most so long, "-" for none.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return cmp.Or(s[:min(len(s), most)], "-")
}

// cut returns a message of at most so many octets, and no part of a character at its end
// (RFC 5424, 6.1).
func cut(message []byte, most int) []byte {
	if len(message) <= most {
		return message
	}
	for most > 0 && !utf8.RuneStart(message[most]) {
		most--
	}
	return message[:most]
}
