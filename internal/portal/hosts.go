package portal

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/console"
)

// Hosts are the computers that have joined, or may. Each method is one transaction, which
// fails with Denied unless the actor's credential is valid.
type Hosts interface {
	// List returns all hosts but those that were removed, by name.
	List(ctx context.Context) ([]ShownHost, error)
	// Invite adds a host, or with again invites one that there is, and returns the command
	// to run there and until when it works: once.
	Invite(ctx context.Context, by postern.Actor, h postern.Host, again bool) (command string, until time.Time,
		err error)
	// SetStatus suspends, resumes (HostJoined) or removes a host.
	SetStatus(ctx context.Context, by postern.Actor, name string, s postern.HostStatus) error
}

// ShownHost is a host with what is wrong with it.
type ShownHost struct {
	postern.Host
	Wrong []string
}

func (p *Portal) hosts(r *request) error { return p.renderHosts(r, 200, nil) }

func (p *Portal) renderHosts(r *request, status int, errs map[string]string) error {
	list, err := p.Hosts.List(r.Context())
	if err != nil {
		return err
	}
	pg := page{Title: "Hosts", Nav: "admin", Tab: "hosts", Errors: errs, Data: map[string]any{"Hosts": list}}
	if errs != nil {
		pg.Values = map[string]string{}
		for k := range r.PostForm {
			pg.Values[k] = r.PostForm.Get(k)
		}
	}
	p.render(r, status, "hosts", pg)
	return nil
}

// inviteHost adds a host, and shows the command that it joins with.
func (p *Portal) inviteHost(r *request) error {
	h := postern.Host{
		Name:   strings.ToLower(strings.TrimSpace(r.PostForm.Get("name"))),
		Names:  words(r.PostForm.Get("names")),
		Groups: words(r.PostForm.Get("groups")),
	}
	if err := h.Validate(); err != nil {
		return p.renderHosts(r, postern.Invalid.HTTPStatus(), map[string]string{"name": capital(err.Error()) + "."})
	}
	return p.showInvitation(r, h, false)
}

// words returns what stands between spaces and commas.
func words(s string) []string {
	return slices.Collect(strings.FieldsFuncSeq(s, func(c rune) bool { return c == ',' || c <= ' ' }))
}

func (p *Portal) showInvitation(r *request, h postern.Host, again bool) error {
	command, until, err := p.Hosts.Invite(r.Context(), p.actor(r), h, again)
	if postern.CodeOf(err) == postern.Conflict && err != nil {
		return p.renderHosts(r, postern.Conflict.HTTPStatus(), map[string]string{"name": capital(err.Error()) + "."})
	}
	if err != nil {
		return err
	}
	p.render(r, 200, "hostinvited", page{
		Title: "Join " + h.Name, Nav: "admin", Tab: "hosts", Data: map[string]any{"Command": command, "Until": until},
	})
	return nil
}

// hostDo suspends, resumes or removes a host, or invites it again.
func (p *Portal) hostDo(r *request) error {
	name := r.PathValue("name")
	status := map[string]postern.HostStatus{
		"suspend": postern.HostSuspended, "resume": postern.HostJoined, "remove": postern.HostRemoved,
	}[r.PathValue("do")]
	switch {
	case !postern.ValidHostName(name):
		return postern.Errorf(postern.NotFound, "There is no such host.")
	case r.PathValue("do") == "invite":
		return p.showInvitation(r, postern.Host{Name: name}, true)
	case status == "":
		return postern.Errorf(postern.NotFound, "There is no such page here.")
	}
	if err := p.Hosts.SetStatus(r.Context(), p.actor(r), name, status); err != nil {
		return err
	}
	back := hostPath(name)
	if status == postern.HostRemoved {
		back = "/admin/hosts"
	}
	p.redirect(r, back+"?done=changed")
	return nil
}

// hostPage shows one host, who is signed in there, and what was done there last. A host that
// was removed, or that never joined, has a history all the same.
func (p *Portal) hostPage(r *request) error {
	name := r.PathValue("name")
	if !postern.ValidHostName(name) {
		return postern.Errorf(postern.NotFound, "There is no such host.")
	}
	list, err := p.Hosts.List(r.Context())
	if err != nil {
		return err
	}
	sessions, err := p.Sessions(r.Context())
	if err != nil {
		return err
	}
	sessions = slices.DeleteFunc(sessions, func(s console.Session) bool { return s.Host != name })
	slices.Reverse(sessions) // the newest first
	history, err := p.history(r.Context(), console.Query{}.With(console.Host, name))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(h ShownHost) bool { return h.Name == name })
	if i < 0 && len(history.Lines) == 0 {
		return postern.Errorf(postern.NotFound, "There is no such host.")
	}
	data := map[string]any{
		"Sessions": showSessions(sessions[:min(len(sessions), maxShownSessions)]), "Open": len(sessions),
		"History": history, "Known": i >= 0,
	}
	if i >= 0 {
		data["H"] = list[i]
	}
	p.render(r, 200, "host", page{Title: name, Nav: "admin", Tab: "hosts", Data: data})
	return nil
}
