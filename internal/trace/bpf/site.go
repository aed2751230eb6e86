package bpf

import (
	"slices"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// Capture says what the kernel copies besides a probe's arguments.
type Capture uint8

// The captures; probe.c's enum capture.
const (
	Header  Capture = iota
	Message         // an RPC message
	Strings         // short strings: up to 4 of 255 bytes
	Text            // one string of any length
	Buffer          // a pointer and a length
)

const (
	flagRPC    = 1
	flagUrgent = 2
	flagStack  = 4
	flagAnswer = 8
	flagPeer   = 16

	maxStrings = 4
	stringSlot = 256
)

// Where the pointer to a message's bytes is; probe.c's enum where. The kernel
// sets a fourth itself, when it has found one.
const (
	whereNowhere = iota
	whereGiven
	whereSearch
)

// Site is what the kernel knows of one place of one probe.
type Site struct {
	Provider, Name string
	Kind           event.Kind
	Spec           string
	Args           []usdt.Arg
	Capture        Capture
	Texts          []int // arguments that are strings; of Buffer: the pointer and the length
	Urgent         bool
	Stack          bool
	Answer         bool // report when the thread began to serve what it answers: see AttachBegin
}

// NewSite says how a probe of libvirt is captured, from its name and arguments.
func NewSite(p usdt.Probe) Site {
	s := Site{Provider: p.Provider, Name: p.Name, Spec: p.Spec, Kind: event.KindOf(p.Name)}
	s.Args = withoutRefs(s.Kind, p.Args)
	switch s.Kind {
	case event.ClientTx, event.ClientRx, event.ServerRx, event.ServerTx:
		if len(s.Args) >= 8 {
			s.Capture = Message
		}
	case event.SocketNew:
		s.Capture, s.Texts, s.Urgent = Strings, []int{4, 5}, true
	case event.AuthAllow, event.AuthDeny, event.TLSAllow, event.TLSDeny, event.TLSNew:
		s.Capture, s.Texts, s.Urgent = Strings, []int{2}, true
	case event.TLSContextNew:
		s.Capture, s.Texts = Strings, []int{1, 2, 3, 4}
	case event.ServerNew, event.ClientNew, event.MonitorNew, event.HandleAdd:
		s.Urgent = true
	case event.MonitorSend, event.MonitorReply, event.MonitorEvent:
		s.Capture, s.Texts = Text, []int{1}
	case event.MonitorIO, event.MonitorRead, event.MonitorWrite:
		s.Capture, s.Texts = Buffer, []int{1, 2}
	case event.ObjectNew:
		s.Capture, s.Texts = Strings, []int{1}
	}
	for _, i := range s.Texts {
		if i < 0 || i >= len(s.Args) {
			s.Capture, s.Texts = Header, nil
			break
		}
	}
	return s
}

// withoutRefs drops the reference count that builds before 1.0 have among the
// arguments of what creates an object: the second one, but the last of a
// keepalive.
func withoutRefs(k event.Kind, args []usdt.Arg) []usdt.Arg {
	today := map[event.Kind]int{
		event.SocketNew: 6, event.ServerNew: 2, event.ClientNew: 2, event.TLSContextNew: 8, event.TLSNew: 4,
		event.MonitorNew: 2, event.KeepaliveNew: 2,
	}[k]
	if today == 0 || len(args) != today+1 {
		return args
	}
	if k == event.KeepaliveNew {
		return args[:today]
	}
	return slices.Delete(slices.Clone(args), 1, 2)
}

// Searched reports whether the kernel searches for the site's messages from the
// start, because no argument is a pointer to them.
func (s Site) Searched() bool { return s.Capture == Message && !s.pointsToMessage() }

// pointsToMessage reports whether an argument of the site points to its messages:
// the length is read from the struct that contains the pointer, too.
func (s Site) pointsToMessage() bool {
	if s.Capture != Message {
		return false
	}
	l := s.Args[1]
	return l.Mode == usdt.Mem && l.Index == usdt.NoReg && l.Reg != usdt.NoReg
}

// kernel is s as probe.c's struct site.
func (s Site) kernel() probeSite {
	k := probeSite{Capture: uint8(s.Capture)}
	for i := range k.Strings {
		k.Strings[i] = usdt.NoReg
	}
	for i, n := range s.Texts {
		if i < maxStrings {
			k.Strings[i] = uint8(n)
		}
	}
	if s.Urgent {
		k.Flags |= flagUrgent
	}
	if s.Stack {
		k.Flags |= flagStack
	}
	if s.Answer {
		k.Flags |= flagAnswer
	}
	if s.Kind == event.SocketNew {
		k.Flags |= flagPeer
	}
	if s.Kind.RPC() {
		k.Flags |= flagRPC
	}
	if s.Capture == Message {
		k.Where = whereSearch
		if s.pointsToMessage() {
			k.Where = whereGiven
		}
	}
	return k
}

// bufferBeforeLength is how far struct virNetMessage's buffer pointer stands
// before its bufferLength, which the RPC probes' len argument is
// (src/rpc/virnetmessage.h).
const bufferBeforeLength = 8
