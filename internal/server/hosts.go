package server

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
)

// HostDirectory changes hosts, for the command line and the administrators' pages.
type HostDirectory struct {
	DB        *store.DB
	Authority *ca.Authority
	By        postern.Actor
	Event     postern.Event // names who does it
}

// NewHostDirectory returns the hosts, as the user of this computer changes them.
func NewHostDirectory(d people.Directory) HostDirectory {
	return HostDirectory{DB: d.DB, Authority: d.Authority, Event: people.ByHand(postern.Event{})}
}

// HostInvitation is what a host needs to join.
type HostInvitation struct {
	Host    string    `json:"host"`
	Server  string    `json:"server"`
	Token   string    `json:"token"` // a secret until it is used or expires
	Expires time.Time `json:"expires"`
}

// Command returns what to run on the host: in a shell, which does not show the token among
// the arguments of a process.
func (i HostInvitation) Command() string {
	return "echo " + i.Token + " | postern join " + i.Server + " --token-file -"
}

// HostInvite says which hosts are invited, and how.
type HostInvite struct {
	Names    []string
	Like     postern.Host  // what all have besides their names
	Validity time.Duration // of the tokens; 0: host.DefaultValidity
	Again    bool          // also hosts that there are
	Server   string        // the https URL by which they reach this one; "": the portal's
}

// Invite adds hosts, or invites them again, and returns what each needs to join: once.
func (d HostDirectory) Invite(ctx context.Context, o HostInvite) (list []HostInvitation, err error) {
	if o.Server == "" {
		if o.Server, err = people.PortalURL(ctx, d.DB); err != nil {
			return nil, err
		}
	}
	var hosts []postern.Host
	for _, name := range o.Names {
		h := o.Like
		h.Name = strings.ToLower(name)
		hosts = append(hosts, h)
	}
	o.Validity = cmp.Or(o.Validity, host.DefaultValidity)
	tokens, err := host.Invite(ctx, d.DB.Hosts(), d.By, hosts, host.InviteOptions{
		Root: d.Authority.Root(), Validity: o.Validity, Again: o.Again, Event: d.Event,
	})
	if err != nil {
		return nil, err
	}
	for i, t := range tokens {
		list = append(list, HostInvitation{
			Host: hosts[i].Name, Server: o.Server, Token: t.Text(),
			Expires: d.DB.Now().Add(o.Validity).Truncate(time.Second),
		})
	}
	return list, nil
}

// Hosts lists hosts for a server of some version.
type Hosts struct {
	DB      *store.DB
	Version string
}

// List returns all hosts, with what an administrator should look at.
func (s Hosts) List(ctx context.Context) (list []host.Info, err error) {
	krl, err := s.DB.Hosts().KRLVersion(ctx)
	if err != nil {
		return nil, err
	}
	hosts, err := s.DB.Hosts().Hosts(ctx)
	for _, h := range hosts {
		list = append(list, s.look(h, krl))
	}
	return list, err
}

// Show returns one host, also one that was removed.
func (s Hosts) Show(ctx context.Context, name string) (host.Info, error) {
	krl, err := s.DB.Hosts().KRLVersion(ctx)
	if err != nil {
		return host.Info{}, err
	}
	h, err := s.DB.Hosts().Host(ctx, name)
	return s.look(h, krl), err
}

func (s Hosts) look(h postern.Host, krl int64) host.Info {
	return host.Now{Time: s.DB.Now(), Version: s.Version, KRL: krl}.Look(h)
}

// maxHosts bounds how many hosts are invited at a time.
const maxHosts = 1000

// checkHosts reports what an administrator should look at on the hosts.
func (s checks) checkHosts(ctx context.Context) {
	list, err := Hosts{DB: s.state.Store}.List(ctx)
	if err != nil {
		return // the outage of the database is known
	}
	for _, h := range list {
		if h.Status == postern.HostJoined {
			s.record(ctx, postern.EventCheckHost, h.Name, strings.Join(slices.Concat(h.Warnings, h.Problems), "; "))
		}
	}
}

// HostNames returns count names, numbered from 1 where the # stands in pattern; pattern
// alone if count is 0.
func HostNames(pattern string, count int) ([]string, error) {
	switch {
	case count == 0:
		return []string{pattern}, nil
	case count < 0 || count > maxHosts:
		return nil, postern.Errorf(postern.Invalid, "%d hosts are not 1 to %d", count, maxHosts)
	case strings.Count(pattern, "#") != 1:
		return nil, postern.Errorf(postern.Invalid, "%q does not say where the number of each host stands", pattern).
			WithHint("write a # there: hv#")
	}
	var names []string
	for n := range count {
		names = append(names, strings.Replace(pattern, "#", strconv.Itoa(n+1), 1))
	}
	return names, nil
}

// HostChange is what is to be changed of a host.
type HostChange struct {
	AddNames, DropNames   []string
	AddGroups, DropGroups []string
	SetLabels             map[string]string
	DropLabels            []string
}

// Empty reports whether nothing is to be changed.
func (c HostChange) Empty() bool {
	return len(c.AddNames)+len(c.DropNames)+len(c.AddGroups)+len(c.DropGroups)+len(c.SetLabels)+
		len(c.DropLabels) == 0
}

func (c HostChange) apply(h *postern.Host) error {
	h.Names, h.Groups = changed(h.Names, c.AddNames, c.DropNames), changed(h.Groups, c.AddGroups, c.DropGroups)
	if h.Labels == nil {
		h.Labels = map[string]string{}
	}
	maps.Copy(h.Labels, c.SetLabels)
	for _, key := range c.DropLabels {
		delete(h.Labels, key)
	}
	return nil
}

// changed returns a list with some items added, each once, and others taken out.
func changed(list, add, drop []string) []string {
	for _, a := range add {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return slices.DeleteFunc(list, func(s string) bool { return slices.Contains(drop, s) })
}

// Change changes a host. The next certificates that it fetches have its new names.
func (d HostDirectory) Change(ctx context.Context, name string, c HostChange) error {
	return d.DB.Hosts().ChangeHost(ctx, d.By, name, c.apply, d.Event)
}

// SetStatus suspends, resumes or removes a host. It reports whether it had another status
// before.
func (d HostDirectory) SetStatus(ctx context.Context, name string, status postern.HostStatus) (bool, error) {
	return d.DB.Hosts().SetHostStatus(ctx, d.By, name, status, d.Event)
}

// portalHosts are the hosts for the administrators' pages.
type portalHosts struct {
	db *store.DB
	ca *ca.Authority
}

func (p portalHosts) directory(by postern.Actor) HostDirectory {
	return HostDirectory{DB: p.db, Authority: p.ca, By: by, Event: postern.Event{Person: by.Person}}
}

// List implements [portal.Hosts].
func (p portalHosts) List(ctx context.Context) (shown []portal.ShownHost, err error) {
	list, err := Hosts{DB: p.db}.List(ctx)
	for _, h := range list {
		shown = append(shown, portal.ShownHost{Host: h.Host, Wrong: slices.Concat(h.Warnings, h.Problems)})
	}
	return shown, err
}

// Invite implements [portal.Hosts].
func (p portalHosts) Invite(
	ctx context.Context, by postern.Actor, h postern.Host, again bool,
) (command string, until time.Time, err error) {
	list, err := p.directory(by).Invite(ctx, HostInvite{Names: []string{h.Name}, Like: h, Again: again})
	if err != nil {
		return "", until, err
	}
	return list[0].Command(), list[0].Expires, nil
}

// SetStatus implements [portal.Hosts].
func (p portalHosts) SetStatus(ctx context.Context, by postern.Actor, name string, s postern.HostStatus) error {
	_, err := p.directory(by).SetStatus(ctx, name, s)
	return err
}
