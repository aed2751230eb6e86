package timeline

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Filter selects events; the zero Filter selects all of them.
type Filter struct {
	Person  string
	Kind    string // a kind, or the beginning of one up to a dot: "cert" is "cert.issued" too
	Outcome postern.Outcome
	Address string // an address, or a network in CIDR notation
	Object  string // an object; a * at its end stands for anything
	Host    string // the host that saw it, other than the server
	Link    postern.Link
	Since   time.Time // not before
	Until   time.Time // before

	From   int64 // the first index
	Before int64 // only smaller indices; 0 means no bound
	Limit  int   // at most so many; 0 means all
	Last   bool  // with Limit: the last ones, not the first
}

// Validate reports what is wrong with the filter.
func (f Filter) Validate() error {
	if strings.Contains(f.Address, "/") {
		if _, err := netip.ParsePrefix(f.Address); err != nil {
			return postern.Errorf(postern.Invalid, "%q is not a network",
				f.Address).WithHint("for example: 192.0.2.0/24")
		}
	}
	switch f.Outcome {
	case "", postern.OK, postern.Refused, postern.Failed, postern.Unknown:
	default:
		return postern.Errorf(postern.Invalid, "%q is no outcome",
			f.Outcome).WithHint("ok, refused, failed or unknown")
	}
	if (f.Link.Kind == "") != (f.Link.ID == "") {
		return errLink
	}
	if f.Limit < 0 {
		return postern.Errorf(postern.Invalid, "%d entries are less than none", f.Limit).WithHint("0 is all of them")
	}
	return nil
}

var errLink = postern.Errorf(postern.Invalid, "a link is KIND=ID").WithHint("for example: yubikey=vvccccbdefgh")

// ParseLink reads a link as people write it: yubikey=vvccccbdefgh.
func ParseLink(text string) (postern.Link, error) {
	kind, id, _ := strings.Cut(text, "=")
	if kind == "" || id == "" {
		return postern.Link{}, errLink
	}
	return postern.Link{Kind: kind, ID: id}, nil
}

// Kinds returns what Filter.Kind selects: every kind of event, and what kinds begin
// with.
func Kinds() []string {
	var all []string
	for _, k := range postern.EventKinds {
		for i, r := range k.Name {
			if r == '.' {
				all = append(all, k.Name[:i])
			}
		}
		all = append(all, k.Name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// OnDomain selects what was done to a virtual machine, by its name or UUID.
func (f *Filter) OnDomain(name string) {
	f.Kind = postern.EventLibvirtCall
	if len(name) == 36 && strings.Count(name, "-") == 4 {
		f.Link = postern.Link{Kind: postern.LinkDomain, ID: strings.ToLower(name)}
		return
	}
	f.Object = name
}

// Match reports whether the filter selects an event.
func (f Filter) Match(e postern.Event) bool {
	return e.Index >= f.From && (f.Before == 0 || e.Index < f.Before) &&
		(f.Person == "" || e.Person == f.Person) &&
		(f.Kind == "" || e.Kind == f.Kind || strings.HasPrefix(e.Kind, f.Kind+".")) &&
		(f.Outcome == "" || e.Outcome == f.Outcome) &&
		(f.Address == "" || matchAddress(f.Address, e.Address)) &&
		(f.Object == "" || matchObject(f.Object, e.Object)) &&
		(f.Host == "" || e.Host == f.Host) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		(f.Link == postern.Link{} || hasLink(e, f.Link))
}

func matchAddress(want, have string) bool {
	if !strings.Contains(want, "/") {
		return want == have
	}
	network, err := netip.ParsePrefix(want)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(have)
	return err == nil && network.Contains(addr.Unmap())
}

func matchObject(want, have string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(have, prefix)
	}
	return want == have
}

func hasLink(e postern.Event, link postern.Link) bool {
	for _, l := range e.Links {
		if l == link {
			return true
		}
	}
	return false
}

// Source answers questions about the timeline. It returns events in the order
// of their index, and may be used from several goroutines.
type Source interface {
	Events(ctx context.Context, f Filter) ([]postern.Event, error)
}

// Appender adds events to the timeline, all of them or none. It may be used
// from several goroutines.
type Appender interface {
	Append(ctx context.Context, events ...postern.Event) error
}

// eachPage is how many events Each asks for at once.
const eachPage = 1000

// Each calls f with the events that a filter selects, in order and in pages, so that a
// long timeline is not held in memory as a whole. The filter's Limit and Last do not
// count. It returns the error of f at once.
func Each(ctx context.Context, src Source, filter Filter, f func([]postern.Event) error) error {
	filter.Limit, filter.Last = eachPage, false
	for {
		events, err := src.Events(ctx, filter)
		if err != nil || len(events) == 0 {
			return err
		}
		if err := f(events); err != nil || len(events) < eachPage {
			return err
		}
		filter.From = events[len(events)-1].Index + 1
	}
}
