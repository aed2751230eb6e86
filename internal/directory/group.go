package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"github.com/postern-project/postern"
)

const (
	inChain  = "1.2.840.113556.1.4.1941" // LDAP_MATCHING_RULE_IN_CHAIN, [MS-ADTS] section 3.1.1.3.4.4.3
	maxDepth = 32                        // groups in groups, one in the other
)

// memberships says in which groups each person is.
type memberships struct {
	byDN, byName map[string]map[string]bool // to groups' names
}

func (m *memberships) add(index map[string]map[string]bool, key, group string) {
	if index[key] == nil {
		index[key] = map[string]bool{}
	}
	index[key][group] = true
}

// of returns a person's groups, sorted.
func (m *memberships) of(dn, name string) []string {
	all := map[string]bool{}
	maps.Copy(all, m.byDN[normal(dn)])
	maps.Copy(all, m.byName[strings.ToLower(name)])
	return slices.Sorted(maps.Keys(all))
}

// group is one of the directory, by the names of entries in one form.
type group struct {
	name    string // with the suffix
	dn      string
	members []string // people and groups
	logins  []string // people by name (RFC 2307's memberUid)
}

// members reads who is in which group. Active Directory finds the members of a group's
// groups itself, and does not list more than 1,500 members of a group; elsewhere they
// are followed here.
func (r *reader) members(s *Snapshot, microsoft bool) (*memberships, error) {
	attributes := []string{"cn"}
	if !microsoft {
		attributes = append(attributes, "member", "uniqueMember", "memberUid")
	}
	entries, err := r.search(r.c.Groups, attributes...)
	if err != nil {
		return nil, err
	}
	groups := make([]*group, 0, len(entries))
	for _, e := range entries {
		g := &group{name: strings.ToLower(e.GetEqualFoldAttributeValue("cn")) + r.c.Suffix, dn: e.DN}
		if !postern.ValidGroup(g.name) || slices.Contains(r.c.Reserved, g.name) {
			s.Skipped = append(s.Skipped, e.DN+": its name cannot be that of a group from a directory")
			g.name = "" // and is followed nevertheless
		}
		for _, attribute := range []string{"member", "uniqueMember"} {
			for _, dn := range e.GetEqualFoldAttributeValues(attribute) {
				g.members = append(g.members, normal(dn))
			}
		}
		g.logins = e.GetEqualFoldAttributeValues("memberUid")
		groups = append(groups, g)
	}
	m := &memberships{byDN: map[string]map[string]bool{}, byName: map[string]map[string]bool{}}
	if microsoft {
		return m, r.askMembers(groups, m)
	}
	follow(groups, m)
	return m, nil
}

// askMembers asks the directory for the members of each group, and of the groups in it.
func (r *reader) askMembers(groups []*group, m *memberships) error {
	for _, g := range groups {
		if g.name == "" {
			continue
		}
		filter := fmt.Sprintf("(&%s(memberOf:%s:=%s))", r.c.Users, inChain, ldap.EscapeFilter(g.dn))
		entries, err := r.search(filter, "cn")
		if err != nil {
			return err
		}
		for _, e := range entries {
			m.add(m.byDN, normal(e.DN), g.name)
		}
	}
	return nil
}

// follow gives each group the members of the groups in it.
func follow(groups []*group, m *memberships) {
	byDN := map[string]*group{}
	for _, g := range groups {
		byDN[normal(g.dn)] = g
	}
	for _, g := range groups {
		if g.name != "" {
			seen := map[*group]bool{}
			g.visit(byDN, seen, 0, func(inner *group) {
				for _, dn := range inner.members {
					if byDN[dn] == nil {
						m.add(m.byDN, dn, g.name)
					}
				}
				for _, login := range inner.logins {
					m.add(m.byName, strings.ToLower(login), g.name)
				}
			})
		}
	}
}

// visit calls f for a group and each one in it, once.
func (g *group) visit(byDN map[string]*group, seen map[*group]bool, depth int, f func(*group)) {
	if seen[g] || depth > maxDepth {
		return
	}
	seen[g] = true
	f(g)
	for _, dn := range g.members {
		if inner := byDN[dn]; inner != nil {
			inner.visit(byDN, seen, depth+1, f)
		}
	}
}
