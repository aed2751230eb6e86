package audit

import (
	"bytes"
	"slices"

	"github.com/postern-project/postern/internal/sshd/hostconf"
	"golang.org/x/crypto/ssh"
)

// UserCA is what is known of an authority for SSH user certificates.
type UserCA struct {
	Keys   []ssh.PublicKey // all that it signs with
	Grants []Grant         // of its valid certificates, and of those that its rules let it issue
}

// Grant is what an SSH certificate permits.
type Grant struct {
	Principals []string // the accounts; none: any
	Command    string   // the force-command, "" for none
	Forwards   bool     // whether it permits port forwarding
}

// grants returns what certificates of a CA open for an account. mapped says that the host
// maps other principals to it.
func (u *UserCA) grants(account string, mapped bool) *keys {
	k := new(keys)
	for _, g := range u.Grants {
		switch {
		case !mapped && len(g.Principals) > 0 && !slices.Contains(g.Principals, account):
		case g.Command == "":
			k.open = true
		default:
			k.commands, k.forwards = append(k.commands, g.Command), k.forwards || g.Forwards
		}
	}
	slices.Sort(k.commands)
	k.commands = slices.Compact(k.commands)
	return k
}

// certificates returns what the certificates that sshd accepts for a connection open, nil
// if that is not known: sshd trusts a CA that is another's.
func (a *audit) certificates(c hostconf.Case, s settings) *keys {
	file := s.first("trustedusercakeys")
	if file == "" || file == "none" {
		return new(keys)
	}
	b, err := a.Read(file)
	if err != nil || a.userCA == nil || !a.userCA.holds(b) {
		return nil
	}
	mapped := !s.is("authorizedprincipalsfile", "none") || !s.is("authorizedprincipalscommand", "none")
	return a.userCA.grants(c.User, mapped)
}

// holds reports whether all keys in a file are the authority's.
func (u *UserCA) holds(file []byte) bool {
	for _, line := range bytes.Split(file, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil || !slices.ContainsFunc(u.Keys, func(own ssh.PublicKey) bool {
			return bytes.Equal(own.Marshal(), key.Marshal())
		}) {
			return false
		}
	}
	return true
}

// and returns what is open by either keys or certificates.
func (k *keys) and(other *keys) *keys {
	if other == nil {
		return k
	}
	both := &keys{
		commands: slices.Concat(k.commands, other.commands), forwards: k.forwards || other.forwards,
		open: k.open || other.open,
	}
	slices.Sort(both.commands)
	both.commands = slices.Compact(both.commands)
	return both
}
