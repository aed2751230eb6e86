package timeline

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/mod/sumdb/note"
)

// Policy says which logs are trusted, which witnesses, and how many of them must have
// cosigned a checkpoint. It is read from a file of C2SP's tlog-policy.
type Policy struct {
	Logs      []PolicyKey
	Witnesses []PolicyKey

	names  map[string]string // a witness's name in the policy, by the one in its key
	groups map[string]group
	quorum string
}

// PolicyKey is a log or a witness of a policy.
type PolicyKey struct {
	Name string // of a witness, in the policy; of a log, its origin
	Key  string // NAME+HASH+KEY
	URL  string // under which it is asked; "" if the policy has none
}

// group is so many of its members; a member is a witness or a group before it.
type group struct {
	need    int
	members []string
}

// The bounds of a policy.
const (
	maxPolicy     = 256 << 10 // bytes
	maxPolicyKeys = 64        // logs, witnesses and groups, each
	noQuorum      = "none"
)

// ParsePolicy reads a policy. It fails with [postern.Invalid] and the number of the line.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > maxPolicy {
		return nil, postern.Errorf(postern.Invalid, "the policy is longer than %d bytes", maxPolicy)
	}
	p := &policyParser{Policy{names: map[string]string{}, groups: map[string]group{}}, map[string]bool{}}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if why := p.line(words[0], words[1:]); why != "" {
			return nil, postern.Errorf(postern.Invalid, "line %d of the policy: %s", n, why)
		}
	}
	if p.quorum == "" {
		return nil, postern.Errorf(postern.Invalid, "the policy has no line with its quorum").
			WithHint("quorum none asks for no witness")
	}
	return &p.Policy, nil
}

type policyParser struct {
	Policy
	used map[string]bool // names that are members, and the keys that were read
}

// line reads a line, and returns what is wrong with it.
func (p *policyParser) line(word string, args []string) string {
	switch {
	case word == "log" && (len(args) == 1 || len(args) == 2):
		return p.log(append(args, "")[:2])
	case word == "witness" && (len(args) == 2 || len(args) == 3):
		return p.witness(append(args, "")[:3])
	case word == "group" && len(args) >= 3:
		return p.group(args[0], args[1], args[2:])
	case word == "quorum" && len(args) == 1 && p.quorum == "":
		if args[0] != noQuorum && !p.defined(args[0]) {
			return args[0] + " is neither a witness nor a group of the lines before it"
		}
		p.quorum = args[0]
		return ""
	}
	return "not log, witness, group or one quorum, with what belongs to it"
}

func (p *policyParser) log(args []string) string {
	v, err := note.NewVerifier(args[0])
	switch {
	case err != nil:
		return "not the public key of a log"
	case p.used[args[0]] || len(p.Logs) == maxPolicyKeys:
		return "a log that is named already, or one too many"
	}
	p.used[args[0]] = true
	p.Logs = append(p.Logs, PolicyKey{v.Name(), args[0], args[1]})
	return ""
}

func (p *policyParser) witness(args []string) string {
	w, err := NewWitness(args[1])
	switch {
	case err != nil:
		return "not the public key of a witness"
	case args[0] == noQuorum || p.defined(args[0]):
		return "the name " + args[0] + " is not free"
	case p.names[w.Name()] != "" || p.used[string(w.key)] || len(p.Witnesses) == maxPolicyKeys:
		return "a witness that is named already, or one too many"
	}
	p.used[string(w.key)], p.names[w.Name()] = true, args[0]
	p.Witnesses = append(p.Witnesses, PolicyKey{args[0], args[1], args[2]})
	return ""
}

func (p *policyParser) group(name, need string, members []string) string {
	if name == noQuorum || p.defined(name) || len(p.groups) == maxPolicyKeys {
		return "the name " + name + " is not free, or there are too many groups"
	}
	for _, m := range members {
		member := "member " + m
		if !p.defined(m) || p.used[member] {
			return m + " is no witness or group of the lines before it, or in a group already"
		}
		p.used[member] = true
	}
	g := group{members: members}
	switch need {
	case "any":
		g.need = 1
	case "all":
		g.need = len(members)
	default:
		var err error
		if g.need, err = strconv.Atoi(need); err != nil || g.need < 1 || g.need > len(members) ||
			strconv.Itoa(g.need) != need {
			return need + " is not any, all or a number of its members"
		}
	}
	p.groups[name] = g
	return ""
}

// defined reports whether a name is a witness or a group.
func (p *Policy) defined(name string) bool {
	_, isGroup := p.groups[name]
	return isGroup || slices.ContainsFunc(p.Witnesses, func(w PolicyKey) bool { return w.Name == name })
}

// Cosigned returns which of the policy's witnesses cosigned the checkpoint, by their name
// in the policy, and when; and whether they are enough. It fails if a cosignature is not
// valid.
func (p *Policy) Cosigned(signed string) (by map[string]time.Time, enough bool, err error) {
	witnesses, err := p.Keys()
	if err != nil {
		return nil, false, err
	}
	times, err := Cosignatures(signed, witnesses...)
	if err != nil {
		return nil, false, err
	}
	by = map[string]time.Time{}
	for name, at := range times {
		by[p.names[name]] = at
	}
	return by, p.quorum == noQuorum || p.holds(p.quorum, by), nil
}

// Keys returns the public keys of the policy's witnesses, in their order.
func (p *Policy) Keys() ([]*Witness, error) {
	keys := make([]*Witness, len(p.Witnesses))
	for i, w := range p.Witnesses {
		var err error
		if keys[i], err = NewWitness(w.Key); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// holds reports whether a witness cosigned, or enough members of a group.
func (p *Policy) holds(name string, by map[string]time.Time) bool {
	g, isGroup := p.groups[name]
	if !isGroup {
		_, cosigned := by[name]
		return cosigned
	}
	n := 0
	for _, m := range g.members {
		if p.holds(m, by) {
			n++
		}
	}
	return n >= g.need
}

// CheckProof checks a proof, as its JSON is written: that a log of the policy has the
// entry, and that enough witnesses cosigned the checkpoint. It fails with
// [postern.Denied] if it proves less.
func (p *Policy) CheckProof(text []byte) (c Checked, err error) {
	proof, err := ParseProof(text)
	if err != nil {
		return c, err
	}
	keys, err := p.logKeys(proof.Checkpoint)
	if err != nil {
		return c, err
	}
	if c, err = CheckProof(text, keys); err != nil {
		return c, err
	}
	by, enough, err := p.Cosigned(proof.Checkpoint)
	if err != nil {
		return c, postern.Errorf(postern.Denied, "the proof's %w", err)
	}
	if c.Cosigned = by; !enough {
		return c, postern.Errorf(postern.Denied, "too few witnesses cosigned the proof's checkpoint: %s", names(by)).
			WithHint("ask for the proof again, once the log's witnesses have cosigned a checkpoint with the entry")
	}
	return c, nil
}

// logKeys returns the public keys of the log that a checkpoint says it is of, as [ParseKeys]
// reads them. A log has several while one follows another.
func (p *Policy) logKeys(signed string) (string, error) {
	origin, _, _ := strings.Cut(signed, "\n")
	var keys []string
	for _, l := range p.Logs {
		if l.Name == origin {
			keys = append(keys, l.Key)
		}
	}
	if keys == nil {
		return "", postern.Errorf(postern.Denied, "the policy has no log %.80q", origin)
	}
	return FormatKeys(nil, keys), nil
}

// names lists who cosigned.
func names(by map[string]time.Time) string {
	if len(by) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(by)), ", ")
}
