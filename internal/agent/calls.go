package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/timeline"
)

// calls is a sink of a trace that makes a timeline event of each call to a daemon
// when it is answered, or when it is known that it is not.
type calls struct {
	host, boot string
	watched    Watched
	emit       func(postern.Event)
	decoder    libvirt.Decoder
	units      units
	idle       func() error // of the flight recorder; nil without one
}

func newCalls(host string, watched Watched, emit func(postern.Event)) *calls {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return &calls{host: host, boot: strings.TrimSpace(string(boot)), watched: watched, emit: emit, units: units{}}
}

// Event implements a trace's sink.
func (c *calls) Event(e *event.Event) error {
	c.units.see(e.Peer)
	switch {
	case e.Kind == event.Lost:
		c.emit(postern.Event{
			Time: e.Wall, Kind: postern.EventAgentLost, Outcome: postern.Failed, Host: c.host, Object: c.host,
			Count:  int64(e.Arg(0)),
			Reason: "more happened than could be read", Details: map[string]string{"probe": e.Probe},
		})
	case e.UID != 0: // what the daemon of an unprivileged user reports can be forged
	case e.Kind == event.ServerTx && libvirt.Type(e.Type).IsReply():
		c.answered(e)
	case (e.Kind == event.CallOpen || e.Kind == event.CallUnanswered) && e.Call.Served:
		c.unanswered(e)
	}
	return nil
}

// Idle implements a trace's sink.
func (c *calls) Idle() error {
	if c.idle == nil {
		return nil
	}
	return c.idle()
}

// maxReason bounds an error's text, in bytes.
const maxReason = 500

// refusals are the errors by which libvirt refuses a call.
var refusals = map[string]bool{
	"access_denied": true, "auth_failed": true, "auth_cancelled": true, "auth_unavailable": true,
	"operation_denied": true,
}

// answered reports a call with its answer.
func (c *calls) answered(e *event.Event) {
	ev, ok := c.call(e)
	if !ok {
		return
	}
	ev.Outcome, ev.Took = postern.OK, e.Took
	m := c.decoder.Event(e)
	about(&ev, m) // a virtual machine that was made by the call
	if m.Status == libvirt.Failed {
		ev.Outcome, ev.Reason = postern.Failed, string(m.AppendText(nil, libvirt.Style{}))
		if f := m.Failure(); f != nil && refusals[libvirt.ErrorName(f.Code)] {
			ev.Outcome = postern.Refused
		}
		ev.Reason = ev.Reason[:min(len(ev.Reason), maxReason)]
	}
	c.emit(ev)
}

// unanswered reports a call that has no answer. Whether it was done is not known.
func (c *calls) unanswered(e *event.Event) {
	ev, ok := c.call(e)
	if !ok {
		return
	}
	ev.Outcome, ev.Took = postern.Unknown, e.Took
	ev.Reason = "the connection ended before the answer; it may have been done"
	if e.Kind == event.CallOpen {
		ev.Reason = "it was not answered yet when watching ended"
	}
	c.emit(ev)
}

// call returns what is known of the event's call, and whether it is to be reported.
func (c *calls) call(e *event.Event) (postern.Event, bool) {
	when := c.watched.of(e.Prog, e.Proc)
	switch {
	case when == 0, e.Call != nil && (e.Call.Forwarded || e.Call.Named): // the daemon that does it reports it
		return postern.Event{}, false
	case e.Call == nil: // it was made before the trace began
		return c.base(e.Peer, e), when != secrets
	}
	m := c.decoder.Arguments(e.Call)
	seen := e.Call.Args != nil || e.Call.ArgsLen == 0
	if when == secrets && seen && flagsOf(m)&secureFlags == 0 {
		return postern.Event{}, false
	}
	ev := c.base(e.Call.Peer, e)
	ev.Time = e.Wall.Add(-e.Took)
	about(&ev, m)
	return ev, true
}

// secureFlags are the flags of the procedures that describe something by which
// secrets are asked for: VIR_DOMAIN_XML_SECURE and its likes,
// VIR_DOMAIN_XML_MIGRATABLE (libvirt-domain.h).
const secureFlags = 1 | 8

// flagsOf returns a call's flags, or all of them where they were not seen.
func flagsOf(m *libvirt.Message) uint64 {
	for i := range m.Values {
		if m.Values[i].Name == "flags" {
			return m.Values[i].Num
		}
	}
	return ^uint64(0)
}

// base returns an event with a message's caller and procedure.
func (c *calls) base(p *event.Peer, e *event.Event) postern.Event {
	ev := postern.Event{
		Time: e.Wall, Kind: postern.EventLibvirtCall, Host: c.host,
		Details: map[string]string{timeline.Procedure: apiName(e.Prog, e.Proc)},
	}
	if _, known := libvirt.Lookup(e.Prog, e.Proc); known == nil {
		ev.Details["unknown"] = "true" // to the tables: libvirt is newer
	}
	if p == nil {
		return ev
	}
	if p.PID > 0 && p.Start > 0 {
		ev.Links = append(ev.Links, c.link(postern.LinkProcess, fmt.Sprintf("%d/%d", p.PID, p.Start)))
	}
	if p.Session > 0 {
		ev.Links = append(ev.Links, c.link(postern.LinkSession, strconv.FormatUint(uint64(p.Session), 10)))
	}
	if p.PID == 0 && p.UID < 0 {
		ev.Address = addressOf(p.Remote)
	}
	account := p.User
	if account == "" && p.UID >= 0 {
		account = strconv.Itoa(p.UID)
	}
	for key, value := range map[string]string{
		"user": account, "sasl": p.SASLName, "tls": p.TLSName, "unit": c.units.of(p),
	} {
		if value != "" {
			ev.Details[key] = value
		}
	}
	return ev
}

// link returns a link to what is unique on this host since it was started.
func (c *calls) link(kind, id string) postern.Link {
	return postern.Link{Kind: kind, ID: c.host + "/" + c.boot + "/" + id}
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

// about sets what the call is done to, as far as it is not known: the arguments that define a
// virtual machine may have no UUID, which the answer has.
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
	name := cmp.Or(strings.ToValidUTF8(string(o.Name[:min(len(o.Name), 256)]), "?"), uuid)
	if ev.Object = cmp.Or(ev.Object, name); ev.Object != name {
		return
	}
	link := postern.Link{Kind: postern.LinkDomain, ID: uuid}
	if o.Kind == libvirt.ObjectDomain && uuid != "" && !slices.Contains(ev.Links, link) {
		ev.Links = append(ev.Links, link)
	}
}

// status returns an event of the agent itself.
func status(kind, host, version string) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: kind, Outcome: postern.OK, Host: host, Object: host,
		Details: map[string]string{"version": version},
	}
}
