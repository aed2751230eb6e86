// Package qmp reads the messages between libvirt and QEMU's monitor, and masks the
// secrets in them. Its input is foreign, and often only the
// beginning of a message: it is scanned in place, never panics, and costs no
// memory.
//
// The protocol is QEMU's docs/interop/qmp-spec.rst.
package qmp

import (
	"bytes"
	"encoding/json"
)

// Kind is what a message is.
type Kind uint8

// The kinds.
const (
	Unknown Kind = iota
	Command
	Reply
	Failure // a reply that says why not
	Event
	Greeting
)

// Message is one message of the monitor. Its slices are part of the input,
// but for strings that were escaped.
type Message struct {
	Kind  Kind
	Name  []byte // of the command or event
	ID    []byte // of commands and replies; nil when there is none or it was cut
	Body  []byte // JSON of the arguments, the returned value or the event's data; as far as captured
	Class []byte // of a failure
	Desc  []byte // of a failure: why, in words
	// Seconds and Micros are when QEMU sent the event, since 1970.
	Seconds, Micros int64
	Cut             bool // the message's end is missing
}

// Parse reads one message. Of one that was cut it returns what is there; QEMU
// writes the id last, so that of a cut reply is found only if the message's
// tail was kept ([TailID]).
func Parse(b []byte) Message {
	var m Message
	s := scanner{b: b}
	if !s.take('{') {
		return m
	}
	for !s.take('}') {
		key, ok := s.key()
		if !ok {
			break
		}
		value, ok := s.value()
		m.set(key, value)
		if !ok {
			break
		}
		s.take(',')
		if s.end() {
			break
		}
	}
	m.Cut = s.failed || !s.closed
	return m
}

func (m *Message) set(key, value []byte) {
	switch string(key) {
	case "execute", "exec-oob":
		m.Kind, m.Name = Command, text(value)
	case "arguments":
		m.Body = value
	case "return":
		m.Kind, m.Body = Reply, value
	case "event":
		m.Kind, m.Name = Event, text(value)
	case "data":
		m.Body = value
	case "error":
		m.Kind = Failure
		m.Class, m.Desc = text(member(value, "class")), text(member(value, "desc"))
	case "id":
		m.ID = text(value)
	case "timestamp":
		m.Seconds, m.Micros = number(member(value, "seconds")), number(member(value, "microseconds"))
	case "QMP":
		m.Kind, m.Body = Greeting, value
	}
}

// TailID returns the id at the end of a message of which only the end was
// kept, or nil.
func TailID(tail []byte) []byte {
	i := bytes.LastIndex(tail, []byte(`"id"`))
	if i < 0 {
		return nil
	}
	s := scanner{b: tail[i+4:]}
	if !s.take(':') {
		return nil
	}
	v, ok := s.value()
	if !ok || !s.take('}') || !s.end() || len(v) == 0 || v[0] == '{' || v[0] == '[' {
		return nil
	}
	return text(v)
}

// member returns the value of a key in an object, or nil.
func member(object []byte, name string) []byte {
	s := scanner{b: object}
	if !s.take('{') {
		return nil
	}
	for {
		key, ok := s.key()
		if !ok {
			return nil
		}
		v, ok := s.value()
		if string(key) == name {
			return v
		}
		if !ok || !s.take(',') {
			return nil
		}
	}
}

// Member returns the text of a member of a message's body: the value of a
// string, the spelling of anything else, or nil.
func (m *Message) Member(name string) []byte { return text(member(m.Body, name)) }

func number(b []byte) int64 {
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<53 {
			return n
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// text returns what a JSON string says, or the spelling of another value.
func text(v []byte) []byte {
	if len(v) == 0 || v[0] != '"' && v[0] != '\'' {
		return v
	}
	quote := v[0]
	v = v[1:]
	if n := len(v); n > 0 && v[n-1] == quote {
		v = v[:n-1]
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v
	}
	return unescape(v)
}

func unescape(v []byte) []byte {
	quoted := make([]byte, 0, len(v)+2)
	quoted = append(quoted, '"')
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) && v[i+1] == '\'' {
			continue // QEMU's own escape
		}
		if v[i] == '"' && (i == 0 || v[i-1] != '\\') {
			quoted = append(quoted, '\\')
		}
		quoted = append(quoted, v[i])
	}
	quoted = append(quoted, '"')
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return v
	}
	return []byte(s)
}
