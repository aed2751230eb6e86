// Package remote has a server on another host decide about logins. On the host, a
// [Client] is the [sshd.Checker] that answers pam_postern; on the server, a [Handler]
// answers the client.
//
// A question is a POST of JSON over a connection with client certificates, its answer
// JSON. The server takes the host from the certificate: a question does not name it, so a
// host asks about itself alone.
package remote

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// The paths of the questions, below Prefix.
const (
	Prefix      = "/api/logins/"
	codePath    = Prefix + "code"
	accountPath = Prefix + "account"
)

// Bounds of a message and of its fields, in bytes.
const (
	maxMessage = 16 << 10
	maxField   = 255 // as in pam_postern's own protocol
)

// question is what a host asks: whether a code proves an account's person, or whether
// the account's person is active, then only User is set.
type question struct {
	User     string `json:"user"`
	Service  string `json:"service,omitempty"`
	Address  string `json:"address,omitempty"`
	Code     string `json:"code,omitempty"`
	Password bool   `json:"password,omitempty"` // may precede the code
	Digits   bool   `json:"digits,omitempty"`   // may be the code behind a password
	// Event is what the timeline is to say of an acceptance; nil: nothing.
	Event *postern.Event `json:"event,omitempty"`
}

// answer is what the server says. Verdict is "yes", or the name of the code of the
// error that refuses: what is neither refuses, too.
type answer struct {
	Verdict    string        `json:"verdict"`
	Reason     string        `json:"reason,omitempty"` // of a refusal, in words
	Person     string        `json:"person,omitempty"`
	Credential *postern.Link `json:"credential,omitempty"`
	Before     int           `json:"before,omitempty"` // bytes of the question's code that precede the accepted code
}

const yes = "yes"

// decode reads a message of one JSON object without unknown fields, of at most limit
// bytes.
func decode(r io.Reader, limit int64, v any) error {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return postern.Errorf(postern.Unavailable, "the message was cut short: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if int64(len(text)) > limit || d.Decode(v) != nil || d.More() {
		return postern.Errorf(postern.Invalid, "that is no message of this protocol")
	}
	return nil
}

// check reports what no host asks.
func (q question) check() error {
	for _, field := range []string{q.User, q.Service, q.Address, q.Code} {
		if len(field) > maxField {
			return postern.Errorf(postern.Invalid, "a field of the question is longer than %d bytes", maxField)
		}
	}
	if q.User == "" {
		return postern.Errorf(postern.Invalid, "the question names no account")
	}
	return nil
}

// answerOf says what a checker decided.
func answerOf(p sshd.Proof, err error) answer {
	a := answer{Verdict: yes, Person: p.Person, Before: p.Password}
	if p.Credential != (postern.Link{}) {
		a.Credential = &p.Credential
	}
	if err != nil {
		code := postern.CodeOf(err)
		a.Verdict, a.Reason = code.String(), err.Error()
		if code == postern.Internal {
			a.Reason = "something broke on the server"
		}
	}
	return a
}

// refusals are the verdicts by which a server refuses; any other than these and "yes"
// means that it could not decide.
var refusals = map[string]postern.Code{
	postern.Denied.String():   postern.Denied,
	postern.Invalid.String():  postern.Invalid,
	postern.NotFound.String(): postern.NotFound,
	postern.Conflict.String(): postern.Conflict,
	postern.TooMany.String():  postern.TooMany,
}

// proof returns what an answer says of a code of that many bytes. What cannot be an
// answer is no proof.
func (a answer) proof(code int) (sshd.Proof, error) {
	p := sshd.Proof{Person: a.Person, Password: a.Before}
	if a.Credential != nil {
		p.Credential = *a.Credential
	}
	if refusal, ok := refusals[a.Verdict]; ok {
		return p, postern.Errorf(refusal, "%.200s", sshd.Printable(a.Reason))
	}
	if a.Verdict != yes || a.Before < 0 || a.Before > code {
		return sshd.Proof{}, postern.Errorf(postern.Unavailable, "the server could not decide: %.200s",
			sshd.Printable(a.Reason))
	}
	return p, nil
}
