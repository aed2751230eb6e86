package front

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
	"go.uber.org/zap"
)

// warnOfUnknown warns of each person and group that a guard names and that the store
// does not have: most likely a mistake, and no client passes by it. It is no error, since
// the person may be added later.
func (g *Guard) warnOfUnknown(ctx caddy.Context) {
	if g.live.People == nil || !slices.ContainsFunc(g.Require, func(r Require) bool {
		return len(r.named().Persons)+len(r.named().Groups) > 0
	}) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	people, err := g.live.People(limited)
	if err != nil {
		return // guards are closed for as long as the store cannot be asked
	}
	for _, r := range g.Require {
		for _, u := range r.unknown(people) {
			ctx.Logger().Warn("a guard names a "+u.kind+" that does not exist, so no client passes by that name",
				zap.String("require", strings.Join(r.Paths, " ")), zap.String(u.kind, u.name))
		}
	}
}

// unknown is a name that no person or group has.
type unknown struct{ kind, name string }

// unknown returns the directive's persons and groups that do not exist. An address may
// be that of another CA's certificate where such CAs are trusted.
func (r Require) unknown(people []postern.Person) (out []unknown) {
	people = slices.DeleteFunc(slices.Clone(people), func(p postern.Person) bool {
		return p.Status == postern.PersonRemoved
	})
	othersCAs := slices.ContainsFunc(r.Trust, func(f string) bool { return f != ownWord })
	for _, name := range r.named().Persons {
		named := func(p postern.Person) bool { return p.Name == name || strings.EqualFold(p.Email, name) }
		if !slices.ContainsFunc(people, named) && !(othersCAs && strings.Contains(name, "@")) {
			out = append(out, unknown{"person", name})
		}
	}
	for _, group := range r.named().Groups {
		if !slices.ContainsFunc(people, func(p postern.Person) bool { return slices.Contains(p.Groups, group) }) {
			out = append(out, unknown{"group", group})
		}
	}
	return out
}

// named returns the persons and groups of all the directive's ways.
func (r Require) named() (all gate.Way) {
	for _, w := range r.config(nil).Ways() {
		all.Persons, all.Groups = append(all.Persons, w.Persons...), append(all.Groups, w.Groups...)
	}
	return all
}
