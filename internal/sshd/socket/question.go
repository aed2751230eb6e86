package socket

import (
	"errors"
	"fmt"
)

// Ask says what pam_postern wants to know, or to tell.
type Ask byte

// The questions.
const (
	AskCode    Ask = 1 // does this code prove this user?
	AskAccount Ask = 2 // may this user come in at all?
	TellOpened Ask = 3 // a session of this user opened
	TellClosed Ask = 4 // and closed
	// TellAsked says that a code is asked for. It gets no answer; the connection
	// is held, and ends with the packet codeGiven, or without if none was given.
	TellAsked Ask = 5
)

// codeGiven is what pam_postern sends when the code that it asked for was typed.
const codeGiven = "PD1"

// Verdict answers a question. Everything but Yes keeps the door shut; NoFactor
// lets the module step aside where the administrator wrote nullok, and in the
// account phase.
type Verdict byte

// The verdicts.
const (
	Yes         Verdict = 1
	No          Verdict = 2
	NoFactor    Verdict = 3
	Unavailable Verdict = 4
)

// nonceSize is the length of what binds an answer to its question.
const nonceSize = 16

// fieldMax is the longest field of a question, bytes.
const fieldMax = 255

// questionMax is the longest question, bytes: header, flags and five fields.
const questionMax = 3 + 1 + nonceSize + 1 + 5*(1+fieldMax)

const flagNullOK = 1

// Question is what pam_postern sends: one packet, as pam/pam_postern.c writes
// it.
type Question struct {
	Ask     Ask
	Nonce   [nonceSize]byte
	NullOK  bool
	Service string // PAM's service name: sshd, sudo
	User    string // as the client claims; never empty
	Host    string // the remote host or address, as the service tells
	TTY     string
	Code    string // as typed, for AskCode only
}

var errQuestion = errors.New("not a question of pam_postern")

// ParseQuestion reads one packet. It accepts exactly what pam_postern writes.
func ParseQuestion(b []byte) (Question, error) {
	var q Question
	header := len("PQ1") + 1 + nonceSize + 1
	if len(b) < header || len(b) > questionMax || string(b[:3]) != "PQ1" {
		return q, errQuestion
	}
	q.Ask = Ask(b[3])
	copy(q.Nonce[:], b[4:])
	flags := b[header-1]
	q.NullOK = flags&flagNullOK != 0
	b = b[header:]
	for _, field := range []*string{&q.Service, &q.User, &q.Host, &q.TTY, &q.Code} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return q, errQuestion
		}
		*field = string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	switch {
	case len(b) > 0, flags&^flagNullOK != 0, q.User == "":
		return q, errQuestion
	case q.Ask < AskCode, q.Ask > TellAsked:
		return q, fmt.Errorf("%w: kind %d is unknown", errQuestion, q.Ask)
	case q.Ask != AskCode && q.Code != "":
		return q, fmt.Errorf("%w: a code where none is asked for", errQuestion)
	}
	return q, nil
}

// Append appends the packet of q to b. Fields past 255 bytes are cut.
func (q Question) Append(b []byte) []byte {
	b = append(append(b, 'P', 'Q', '1', byte(q.Ask)), q.Nonce[:]...)
	var flags byte
	if q.NullOK {
		flags |= flagNullOK
	}
	b = append(b, flags)
	for _, s := range []string{q.Service, q.User, q.Host, q.TTY, q.Code} {
		s = s[:min(len(s), fieldMax)]
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// answer returns the packet that answers q.
func (q Question) answer(v Verdict) []byte {
	return append(append([]byte{'P', 'A', '1', byte(q.Ask)}, q.Nonce[:]...), byte(v))
}
