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
	primary      map[string]string          // from primaryGroupID to a group's name in one form
}

func (m *memberships) add(index map[string]map[string]bool, key, group string) {
	if index[key] == nil {
		index[key] = map[string]bool{}
	}
	index[key][group] = true
}

// of returns the groups of a person, by their entry, sorted. Active Directory does not list
// the primary group of an account among its groups.
func (m *memberships) of(e *ldap.Entry, name string) []string {
	all := map[string]bool{}
	maps.Copy(all, m.byDN[normal(e.DN)])
	maps.Copy(all, m.byName[strings.ToLower(name)])
	if dn, ok := m.primary[e.GetEqualFoldAttributeValue("primaryGroupID")]; ok {
		maps.Copy(all, m.byDN[dn])
	}
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

// askMembers asks the directory for the members of each group, and of the groups in it. A
// group is among its own members, for those whose primary group it is.
func (r *reader) askMembers(groups []*group, m *memberships) (err error) {
	if m.primary, err = r.primaryGroups(); err != nil {
		return err
	}
	for _, g := range groups {
		if g.name == "" {
			continue
		}
		m.add(m.byDN, normal(g.dn), g.name)
		filter := fmt.Sprintf("(&(|%s%s)(memberOf:%s:=%s))", r.c.Users, microsoftGroups, inChain,
			ldap.EscapeFilter(g.dn))
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

// primaryGroups reads which groups can be primary ones. The number is that of
// primaryGroupToken ([MS-ADTS] section 3.1.1.4.5.11).
func (r *reader) primaryGroups() (map[string]string, error) {
	const token = "primaryGroupToken"
	entries, err := r.search(microsoftGroups, token)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, len(entries))
	for _, e := range entries {
		if v := e.GetEqualFoldAttributeValue(token); v != "" {
			all[v] = normal(e.DN)
		}
	}
	return all, nil
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
