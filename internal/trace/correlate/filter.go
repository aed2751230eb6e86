package correlate

import (
	"errors"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Filter says which events are handed on. The zero Filter lets all pass. What
// the kernel can decide alone is filtered there already.
type Filter struct {
	Clients  []uint64      // connections, by the address that events show
	Users    []string      // of the client: login name, number, or SASL identity
	Types    uint32        // bit n: RPC messages of type n; 0 means all
	Statuses uint32        // bit n: replies of status n; 0 means all
	Domains  []string      // globs on the virtual machine's name
	Slower   time.Duration // calls that took at least this, with their replies
	Errors   bool          // calls that failed, and refusals

	Connections bool // beginnings and ends of connections, too, where messages are chosen

	PIDs       []int                    // processes; none means all
	Procedures map[event.Procedure]bool // nil means all
	Unknown    bool                     // procedures that no table knows pass, whatever Procedures are
	// Slow is the least time a dispatch of the event loop must take to be shown.
	Slow time.Duration
}

// Validate checks the globs and durations.
func (f Filter) Validate() error {
	if f.Slow < 0 || f.Slower < 0 {
		return errors.New("the least duration of what is shown is not negative")
	}
	for _, g := range f.Domains {
		if _, err := path.Match(g, ""); err != nil {
			return err
		}
	}
	return nil
}

// calls reports whether f chooses among messages by what they are, so that other
// events are not shown.
func (f *Filter) calls() bool {
	return f.Procedures != nil || f.Types != 0 || f.Statuses != 0 || f.Slower > 0 || f.Errors
}

// messages reports the same, or that f chooses among virtual machines: of other
// events only those of a monitor belong to one.
func (f *Filter) messages() bool { return f.calls() || len(f.Domains) > 0 }

// late reports whether a call can only be judged by its reply.
func (f *Filter) late() bool { return f.Slower > 0 || f.Errors }

// verdict is what becomes of an event.
type verdict uint8

const (
	drop verdict = iota
	pass
	hold // until the reply is there
)

// judge decides about an event; c is its call, if it belongs to one, and domain
// finds the virtual machine of a message that does not.
func (f *Filter) judge(e *event.Event, c *call, domain func(*event.Event) string) verdict {
	switch {
	case e.Kind == event.Warning || e.Kind == event.Lost && e.PID == 0:
		return pass
	case e.Kind == event.Gone || e.Kind == event.Lost:
		return when(f.process(e.PID))
	case !f.who(e):
		return drop
	case e.Kind.RPC():
		return f.message(e, c, domain)
	case e.Kind == event.HandleDone || e.Kind == event.TimeoutDone:
		return when(e.Took >= f.Slow && !f.messages())
	case e.Kind >= event.HandleAdd && e.Kind <= event.PollRun:
		return when(f.Slow == 0 && !f.messages())
	case e.Kind >= event.MonitorNew && e.Kind <= event.MonitorSendFD:
		return when(f.domain(e.Domain) && !f.calls())
	case refusal(e.Kind) && f.Errors:
		return pass
	case f.Connections && (e.Kind == event.ServerNew || e.Kind == event.ServerFree):
		return pass
	}
	return when(!f.messages())
}

func when(ok bool) verdict {
	if ok {
		return pass
	}
	return drop
}

func refusal(k event.Kind) bool {
	switch k {
	case event.AuthDeny, event.AuthFail, event.TLSDeny, event.TLSFail, event.TLSHandshakeFail, event.KeepaliveTimeout:
		return true
	}
	return false
}

func (f *Filter) process(pid int) bool { return len(f.PIDs) == 0 || slices.Contains(f.PIDs, pid) }

// who applies the filters by process, connection and user.
func (f *Filter) who(e *event.Event) bool {
	if !f.process(e.PID) {
		return false
	}
	if len(f.Clients) > 0 && !slices.Contains(f.Clients, e.Client) {
		return false
	}
	if len(f.Users) == 0 {
		return true
	}
	if e.Server() {
		p := e.Peer
		return p != nil && slices.ContainsFunc(f.Users, func(u string) bool {
			return u != "" && (u == p.User || u == p.SASLName || p.UID >= 0 && u == strconv.Itoa(p.UID))
		})
	}
	return slices.Contains(f.Users, strconv.Itoa(e.UID))
}

func (f *Filter) procedure(prog uint32, proc int32) bool {
	if f.Procedures == nil || f.Procedures[event.Procedure{Prog: prog, Proc: proc}] {
		return true
	}
	_, known := libvirt.Lookup(prog, proc)
	return f.Unknown && known == nil
}

func (f *Filter) domain(name string) bool {
	return len(f.Domains) == 0 || slices.ContainsFunc(f.Domains, func(g string) bool {
		ok, err := path.Match(g, name)
		return err == nil && ok
	})
}

func (f *Filter) message(e *event.Event, c *call, domain func(*event.Event) string) verdict {
	if !f.procedure(e.Prog, e.Proc) {
		return drop
	}
	if len(f.Domains) > 0 && !f.domain(domainOf(e, c, domain)) {
		return drop
	}
	if f.late() && libvirt.Type(e.Type).IsCall() {
		return hold
	}
	if f.Types != 0 && f.Types&(1<<(e.Type&31)) == 0 {
		return drop
	}
	if f.Statuses != 0 && (libvirt.Type(e.Type).IsCall() || f.Statuses&(1<<(e.Status&31)) == 0) {
		return drop
	}
	if f.Errors && libvirt.Status(e.Status) != libvirt.Failed {
		return drop
	}
	if f.Slower > 0 {
		return when(libvirt.Type(e.Type).IsReply() && e.Took >= f.Slower)
	}
	return pass
}

// domainOf returns the virtual machine of a message: its call's, or that of a
// reply to a call that did not name it, or its own.
func domainOf(e *event.Event, c *call, domain func(*event.Event) string) string {
	if c == nil {
		return domain(e)
	}
	if c.Domain == "" {
		c.Domain = domain(e)
	}
	return c.Domain
}
