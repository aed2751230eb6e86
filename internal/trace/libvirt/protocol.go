// Package libvirt knows libvirt's RPC protocol: the names of its programs,
// procedures, types and errors, and what their payloads say. It reads messages
// that others captured; it opens no connection.
//
// Everything it decodes is foreign: lengths are checked before they are used,
// and nothing panics or grows past [Decoder.Limit].
package libvirt

import (
	"encoding/binary"
	"path"
	"strconv"
	"strings"
)

// HeaderLen is the length word and the header of a message, in bytes.
const HeaderLen = 28

// MaxMessage is the longest message libvirt sends, in bytes.
const MaxMessage = 32 << 20

// Program is one of the programs that share the wire.
type Program struct {
	Name       string
	Number     uint32
	Version    uint32
	Procedures []Procedure // in order of their numbers, from 1
}

// Procedure is one procedure of a program. An event has a number among them.
type Procedure struct {
	Name      string // as libvirt names it today: connect_open, where it once was open
	ACL       string // what the caller must be allowed, comma separated; "" or "none" for nothing
	Number    int32
	args, ret uint16
	traits    trait
}

type trait uint8

const (
	traitEvent trait = 1 << iota
	traitReadstream
	traitWritestream
)

// Event reports whether the daemon sends it unasked.
func (p *Procedure) Event() bool { return p.traits&traitEvent != 0 }

// Stream reports whether a call of it opens a stream.
func (p *Procedure) Stream() bool { return p.traits&(traitReadstream|traitWritestream) != 0 }

// Programs returns all programs. The slice is shared: do not change it.
func Programs() []Program { return known().programs }

// Lookup returns the program and procedure with these numbers, nil for each
// that is unknown. Versions of a program do not change names.
func Lookup(prog uint32, proc int32) (*Program, *Procedure) { return known().lookup(prog, proc) }

func (t *tables) lookup(prog uint32, proc int32) (*Program, *Procedure) {
	for i := range t.programs {
		p := &t.programs[i]
		if p.Number != prog {
			continue
		}
		if proc < 1 || int(proc) > len(p.Procedures) {
			return p, nil
		}
		return p, &p.Procedures[proc-1]
	}
	return nil, nil
}

// Match returns the procedures whose name fits a glob as of [path.Match]:
// "domain_*", or with the program before it, "qemu.*".
func Match(glob string) []Name {
	prog, proc, dotted := strings.Cut(glob, ".")
	if !dotted {
		prog, proc = "*", glob
	}
	var found []Name
	programs := Programs()
	for i := range programs {
		p := &programs[i]
		if ok, err := path.Match(prog, p.Name); err != nil || !ok {
			continue
		}
		for j := range p.Procedures {
			if ok, err := path.Match(proc, p.Procedures[j].Name); err == nil && ok {
				found = append(found, Name{Program: p, Procedure: &p.Procedures[j]})
			}
		}
	}
	return found
}

// Name is a procedure with its program.
type Name struct {
	Program   *Program
	Procedure *Procedure
}

// ProgramName returns a program's name, or its number where it is unknown.
func ProgramName(prog uint32) string {
	if p, _ := Lookup(prog, 0); p != nil {
		return p.Name
	}
	return strconv.FormatUint(uint64(prog), 10)
}

// ProcedureName returns a procedure's name, or its number where it is unknown.
func ProcedureName(prog uint32, proc int32) string {
	if _, p := Lookup(prog, proc); p != nil {
		return p.Name
	}
	return strconv.Itoa(int(proc))
}

// Type is a message's type.
type Type uint32

// The types. Calls and replies with descriptors carry their count before the
// payload.
const (
	Call Type = iota
	Reply
	Event
	Stream
	CallWithFDs
	ReplyWithFDs
	StreamHole
)

var typeNames = [...]string{"call", "reply", "message", "stream", "call_with_fds", "reply_with_fds", "stream_hole"}

// String returns libvirt's name of t, or its number.
func (t Type) String() string {
	if int64(t) < int64(len(typeNames)) {
		return typeNames[t]
	}
	return strconv.FormatUint(uint64(t), 10)
}

// IsCall reports whether t is a call, with descriptors or without.
func (t Type) IsCall() bool { return t == Call || t == CallWithFDs }

// IsReply reports whether t is a reply, with descriptors or without.
func (t Type) IsReply() bool { return t == Reply || t == ReplyWithFDs }

// Status is a message's status.
type Status uint32

// The statuses. Continue is a stream packet with data.
const (
	OK Status = iota
	Failed
	Continue
)

var statusNames = [...]string{"ok", "error", "continue"}

// String returns libvirt's name of s, or its number.
func (s Status) String() string {
	if int64(s) < int64(len(statusNames)) {
		return statusNames[s]
	}
	return strconv.FormatUint(uint64(s), 10)
}

// Header is what stands before each message's payload.
type Header struct {
	Len    uint32 // bytes of the whole message, the length word included; 0 when unknown
	Prog   uint32
	Vers   uint32
	Proc   int32
	Type   Type
	Serial uint32
	Status Status
}

// ParseHeader reads a message's length word and header. It reports false for
// what is too short, or whose length no message has.
func ParseHeader(b []byte) (Header, bool) {
	if len(b) < HeaderLen {
		return Header{}, false
	}
	u := binary.BigEndian.Uint32
	h := Header{
		Len: u(b), Prog: u(b[4:]), Vers: u(b[8:]), Proc: int32(u(b[12:])),
		Type: Type(u(b[16:])), Serial: u(b[20:]), Status: Status(u(b[24:])),
	}
	return h, h.Len >= HeaderLen && h.Len <= MaxMessage
}

// AppendName appends program.version.procedure, numbers where no name is known.
func (h *Header) AppendName(dst []byte) []byte {
	prog, proc := Lookup(h.Prog, h.Proc)
	if prog != nil {
		dst = append(dst, prog.Name...)
	} else {
		dst = strconv.AppendUint(dst, uint64(h.Prog), 10)
	}
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, uint64(h.Vers), 10)
	dst = append(dst, '.')
	if proc != nil {
		return append(dst, proc.Name...)
	}
	return strconv.AppendInt(dst, int64(h.Proc), 10)
}

// named is one number of a table and its name.
type named struct {
	value int64
	name  string
}

// nameOf returns the name of value in a table, or "".
func (t *tables) nameOf(table uint16, value int64) string {
	list := t.names[table]
	if value >= 0 && value < int64(len(list)) && list[value].value == value {
		return list[value].name
	}
	for i := range list {
		if list[i].value == value {
			return list[i].name
		}
	}
	return ""
}

// ErrorName returns the name of an error code, no_domain for 42, or its number.
func ErrorName(code int32) string {
	t := known()
	if n := t.nameOf(t.errorCode, int64(code)); n != "" {
		return n
	}
	return strconv.Itoa(int(code))
}
