package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/timeline"
)

// interest says when a call of a procedure is told of.
type interest uint8

const (
	always interest = iota + 1
	secure          // when its flags ask for secrets
)

// calls are the procedures that are watched; nil means all.
type calls map[event.Procedure]interest

// set returns the procedures for a filter, nil for all.
func (c calls) set() map[event.Procedure]bool {
	if c == nil {
		return nil
	}
	set := map[event.Procedure]bool{}
	for p := range c {
		set[p] = true
	}
	return set
}

// watchedCalls returns the procedures that the globs name, or without any those
// that matter to security.
func watchedCalls(all bool, globs []string) (calls, error) {
	if all && len(globs) > 0 {
		return nil, postern.Errorf(postern.Invalid, "--all and --procedure exclude each other")
	}
	if all {
		return nil, nil
	}
	named, err := procedures(nil, globs)
	if err != nil {
		return nil, err
	}
	watched := calls{}
	for p := range named {
		watched[p] = always
	}
	if named != nil {
		return watched, nil
	}
	for _, prog := range libvirt.Programs() {
		for _, p := range prog.Procedures {
			if i := interestIn(prog.Name, p.Name, p.ACL); i != 0 {
				watched[event.Procedure{Prog: prog.Number, Proc: p.Number}] = i
			}
		}
	}
	return watched, nil
}

// interestIn decides by what a caller must be allowed: all but reading and
// listing. What is asked under a condition only is left out, but for secrets in
// a description. The admin program has no permissions; there the names tell.
func interestIn(program, name, acl string) interest {
	if program == "admin" {
		for _, harmless := range []string{"_get_", "_list_", "_lookup_", "connect_open", "connect_close"} {
			if strings.Contains(name, harmless) {
				return 0
			}
		}
		return always
	}
	found := interest(0)
	for permission := range strings.SplitSeq(acl, ",") {
		_, what, _ := strings.Cut(permission, ":")
		what, condition, _ := strings.Cut(what, ":")
		switch {
		case what == "read_secure" && condition != "":
			found = max(found, secure)
		case what == "", what == "getattr", what == "read", strings.HasPrefix(what, "search_"), condition != "":
		default:
			return always
		}
	}
	return found
}

// Flags of the procedures that describe something, by which secrets are asked
// for: VIR_DOMAIN_XML_SECURE and its likes, VIR_DOMAIN_XML_MIGRATABLE
// (libvirt-domain.h).
const secureFlags = 1 | 8

// callWatcher makes an event of each call that a daemon answers.
type callWatcher struct {
	host, boot string
	watched    calls
	emit       func(postern.Event)
	decoder    libvirt.Decoder
	pending    map[callID]postern.Event
}

// callID names a call while it runs.
type callID struct {
	pid    int
	client uint64
	prog   uint32
	proc   int32
	serial uint32
}

// maxPending bounds how many calls may run.
const maxPending = 1 << 14

func newCallWatcher(host string, watched calls, emit func(postern.Event)) *callWatcher {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return &callWatcher{host: host, boot: strings.TrimSpace(string(boot)), watched: watched, emit: emit, pending: map[callID]postern.Event{}}
}

// Event implements [event.Sink].
func (w *callWatcher) Event(e *event.Event) error {
	if e.Kind.RPC() && e.UID != 0 {
		return nil // a daemon of one user's own tells what that user likes
	}
	switch {
	case e.Kind == event.ServerRx && libvirt.Type(e.Type).IsCall():
		w.called(e)
	case e.Kind == event.ServerTx && libvirt.Type(e.Type).IsReply():
		w.answered(e)
	case e.Kind == event.ServerFree:
		w.unanswered(func(c callID) bool { return c.pid == e.PID && c.client == e.Client })
	case e.Kind == event.Gone:
		w.unanswered(func(c callID) bool { return c.pid == e.PID })
	case e.Kind == event.Lost:
		w.emit(postern.Event{
			Time: e.Wall, Kind: postern.EventAgentLost, Outcome: postern.Failed, Host: w.host, Object: w.host, Count: int64(e.Arg(0)),
			Reason: "more happened than could be read", Details: map[string]string{"probe": e.Probe},
		})
	}
	return nil
}

// Idle implements [event.Sink].
func (w *callWatcher) Idle() error { return nil }

// close tells of the calls that are not answered.
func (w *callWatcher) close() {
	for id, e := range w.pending {
		delete(w.pending, id)
		e.Outcome, e.Reason = postern.Failed, "it was not answered yet when watching ended"
		w.emit(e)
	}
}

// say tells of the agent itself.
func (w *callWatcher) say(kind string) {
	w.emit(postern.Event{Time: time.Now(), Kind: kind, Outcome: postern.OK, Host: w.host, Object: w.host, Details: map[string]string{"version": version()}})
}

// unanswered tells of calls that get no answer any more. Somebody who hangs up
// at once has called all the same.
func (w *callWatcher) unanswered(which func(callID) bool) {
	for id, e := range w.pending {
		if which(id) {
			delete(w.pending, id)
			e.Outcome, e.Reason = postern.Failed, "the connection ended before the answer; it may have been done"
			w.emit(e)
		}
	}
}

func idOf(e *event.Event) callID { return callID{e.PID, e.Client, e.Prog, e.Proc, e.Serial} }

func headerOf(e *event.Event) libvirt.Header {
	return libvirt.Header{
		Len: uint32(e.Len), Prog: e.Prog, Vers: e.Vers, Proc: e.Proc,
		Type: libvirt.Type(e.Type), Serial: e.Serial, Status: libvirt.Status(e.Status),
	}
}

// called keeps a call until its answer.
func (w *callWatcher) called(e *event.Event) {
	if w.watched != nil && w.watched[event.Procedure{Prog: e.Prog, Proc: e.Proc}] == 0 {
		return
	}
	m := w.decoder.Decode(headerOf(e), e.Payload, e.PayloadLen)
	if w.watched[event.Procedure{Prog: e.Prog, Proc: e.Proc}] == secure && !e.NoPayload && flagsOf(m)&secureFlags == 0 {
		return
	}
	if len(w.pending) >= maxPending {
		w.unanswered(func(callID) bool { return true })
	}
	ev := w.base(e)
	about(&ev, m)
	w.pending[idOf(e)] = ev
}

// flagsOf returns a call's flags, or all of them where they were not seen.
func flagsOf(m *libvirt.Message) uint64 {
	for i := range m.Values {
		if m.Values[i].Name == "flags" {
			return m.Values[i].Num
		}
	}
	return ^uint64(0)
}

// answered tells of a call.
func (w *callWatcher) answered(e *event.Event) {
	how := w.watched[event.Procedure{Prog: e.Prog, Proc: e.Proc}]
	if w.watched != nil && how == 0 {
		return
	}
	ev, seen := w.pending[idOf(e)]
	delete(w.pending, idOf(e))
	if !seen {
		if how == secure {
			return // it did not ask for secrets
		}
		ev = w.base(e) // it was called before the watch began
	}
	ev.Outcome, ev.Took = postern.OK, e.Took
	m := w.decoder.Decode(headerOf(e), e.Payload, e.PayloadLen)
	if ev.Object == "" {
		about(&ev, m) // a machine that was made by the call
	}
	if m.Status == libvirt.Failed {
		ev.Outcome, ev.Reason = postern.Failed, string(m.AppendText(nil, libvirt.Style{}))
		if f := m.Failure(); f != nil && refusals[libvirt.ErrorName(f.Code)] {
			ev.Outcome = postern.Refused
		}
		ev.Reason = ev.Reason[:min(len(ev.Reason), maxReason)]
	}
	w.emit(ev)
}

// maxReason bounds an error's text, in bytes.
const maxReason = 500

// refusals are the errors by which libvirt says no.
var refusals = map[string]bool{"access_denied": true, "auth_failed": true, "auth_cancelled": true, "auth_unavailable": true, "operation_denied": true}

// base returns what a message tells of its caller and procedure.
func (w *callWatcher) base(e *event.Event) postern.Event {
	ev := postern.Event{
		Time: e.Wall, Kind: postern.EventLibvirtCall, Host: w.host,
		Details: map[string]string{timeline.Procedure: apiName(e.Prog, e.Proc)},
	}
	p := e.Peer
	if p == nil {
		return ev
	}
	if p.PID > 0 && p.Start > 0 {
		ev.Links = append(ev.Links, postern.Link{Kind: postern.LinkProcess, ID: fmt.Sprintf("%s/%s/%d/%d", w.host, w.boot, p.PID, p.Start)})
	}
	if p.Session > 0 {
		ev.Links = append(ev.Links, postern.Link{Kind: postern.LinkSession, ID: fmt.Sprintf("%s/%s/%d", w.host, w.boot, p.Session)})
	}
	if p.PID == 0 && p.UID < 0 {
		ev.Address = addressOf(p.Remote)
	}
	user := p.User
	if user == "" && p.UID >= 0 {
		user = strconv.Itoa(p.UID)
	}
	for key, value := range map[string]string{"user": user, "sasl": p.SASLName, "tls": p.TLSName} {
		if value != "" {
			ev.Details[key] = value
		}
	}
	return ev
}

// addressOf returns the IP address in libvirt's notation of an address and a
// port, or "". Unix sockets are written with port 0.
func addressOf(s string) string {
	ip, port, ok := strings.Cut(s, ";")
	addr, err := netip.ParseAddr(ip)
	if !ok || port == "0" || err != nil {
		return ""
	}
	return addr.Unmap().WithZone("").String()
}

// about sets what the call is done to.
func about(ev *postern.Event, m *libvirt.Message) {
	o := m.Domain()
	if o.Kind == libvirt.ObjectNone {
		o = m.Object()
	}
	if o.Kind == libvirt.ObjectNone {
		return
	}
	uuid := ""
	if len(o.UUID) == 16 {
		uuid = string(libvirt.AppendUUID(nil, o.UUID))
	}
	if ev.Object = strings.ToValidUTF8(string(o.Name[:min(len(o.Name), 256)]), "?"); ev.Object == "" {
		ev.Object = uuid
	}
	if o.Kind == libvirt.ObjectDomain && uuid != "" {
		ev.Links = append(ev.Links, postern.Link{Kind: postern.LinkDomain, ID: uuid})
	}
}

// capitals are the words that libvirt's API writes in capitals.
var capitals = map[string]string{"xml": "XML", "uuid": "UUID", "id": "ID", "cpu": "CPU", "nmi": "NMI", "pm": "PM", "fd": "FD", "tls": "TLS", "os": "OS", "io": "IO"}

// apiName returns a procedure's name as programs call it, domainDestroy for
// domain_destroy; of other programs than remote with the program before it.
func apiName(prog uint32, proc int32) string {
	words := strings.Split(libvirt.ProcedureName(prog, proc), "_")
	for i, w := range words {
		switch {
		case i == 0 || w == "":
		case capitals[w] != "":
			words[i] = capitals[w]
		default:
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	name := strings.Join(words, "")
	if program := libvirt.ProgramName(prog); program != "remote" {
		name = program + "." + name
	}
	return name
}
