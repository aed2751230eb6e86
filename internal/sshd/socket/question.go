package socket

import (
	"errors"
	"fmt"
)

// Ask says what pam_postern asks, or records.
type Ask byte

// The questions.
const (
	AskCode      Ask = 1 // does this code prove this user?
	AskAccount   Ask = 2 // is this account active?
	NotifyOpened Ask = 3 // a session of this user opened
	NotifyClosed Ask = 4 // and closed
	// NotifyAsked says that a code is asked for. It gets no answer; the connection
	// stays open, and ends with the packet codeGiven, or without if none was given.
	NotifyAsked Ask = 5
)

// codeGiven is what pam_postern sends when the code that it asked for was typed.
const codeGiven = "PD1"

// Verdict answers a question. Everything but Yes refuses; for NoFactor the module
// returns PAM_IGNORE where the administrator wrote nullok, and in the account
// phase.
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

// questionMax is the longest question, bytes: header, flags and six fields.
const questionMax = 3 + 1 + nonceSize + 1 + 6*(1+fieldMax)

const (
	flagNullOK   = 1
	flagCombined = 2 // version 2
)

// The versions of the protocol after the first, in which the module sent the code
// alone.
const (
	// codeAndPassword: the server finds the code in what was typed, and answers where
	// it is.
	codeAndPassword = 2
	// requestingUser: the module sends PAM_RUSER, too.
	requestingUser = 3
)

// Question is what pam_postern sends: one packet, as pam/pam_postern.c writes
// it.
type Question struct {
	Version int // of the protocol, 1 to 3; 0 is written as 1
	Ask     Ask
	Nonce   [nonceSize]byte
	NullOK  bool
	// Combined says that six digits, too, may follow a password (from version 2).
	Combined bool
	Service  string // PAM's service name: sshd, sudo
	User     string // as the client claims; never empty
	Host     string // the remote host or address, as the service reports it
	TTY      string
	// Code is for AskCode only: as typed, from version 2 maybe behind a password.
	Code string
	// RequestedBy is the account that asks to become User, as the service knows it
	// (PAM_RUSER; from version 3).
	RequestedBy string
}

var errQuestion = errors.New("not a question of pam_postern")

// ParseQuestion reads one packet. It accepts exactly what pam_postern writes.
func ParseQuestion(b []byte) (Question, error) {
	var q Question
	header := len("PQ1") + 1 + nonceSize + 1
	if len(b) < header || len(b) > questionMax || string(b[:2]) != "PQ" {
		return q, errQuestion
	}
	if q.Version = int(b[2]) - '0'; q.Version < 1 || q.Version > requestingUser {
		return q, fmt.Errorf("%w that this server knows: pam_postern speaks protocol %q, the server 1 to 3; "+
			"install the module that came with the server", errQuestion, b[2])
	}
	q.Ask = Ask(b[3])
	copy(q.Nonce[:], b[4:])
	flags := b[header-1]
	q.NullOK = flags&flagNullOK != 0
	q.Combined = flags&flagCombined != 0
	b = b[header:]
	for _, field := range q.fields() {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return q, errQuestion
		}
		*field = string(b[1 : 1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	switch {
	case len(b) > 0, flags&^(flagNullOK|flagCombined) != 0, q.Combined && q.Version == 1, q.User == "":
		return q, errQuestion
	case q.Ask < AskCode, q.Ask > NotifyAsked:
		return q, fmt.Errorf("%w: kind %d is unknown", errQuestion, q.Ask)
	case q.Ask != AskCode && q.Code != "":
		return q, fmt.Errorf("%w: a code where none is asked for", errQuestion)
	}
	return q, nil
}

// fields returns the strings of a question in their order.
func (q *Question) fields() []*string {
	fields := []*string{&q.Service, &q.User, &q.Host, &q.TTY, &q.Code, &q.RequestedBy}
	if q.Version < requestingUser {
		return fields[:5]
	}
	return fields
}

// Append appends the packet of q to b. Fields past 255 bytes are cut.
func (q Question) Append(b []byte) []byte {
	b = append(append(b, 'P', 'Q', byte('0'+max(q.Version, 1)), byte(q.Ask)), q.Nonce[:]...)
	var flags byte
	if q.NullOK {
		flags |= flagNullOK
	}
	if q.Combined {
		flags |= flagCombined
	}
	b = append(b, flags)
	for _, field := range q.fields() {
		s := (*field)[:min(len(*field), fieldMax)]
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// answer returns the packet that answers q. code is how many bytes at the end of
// what was typed are the code.
func (q Question) answer(v Verdict, code int) []byte {
	b := append([]byte{'P', 'A', byte('0' + max(q.Version, 1)), byte(q.Ask)}, q.Nonce[:]...)
	b = append(b, byte(v))
	if q.Version >= codeAndPassword {
		b = append(b, byte(code))
	}
	return b
}
