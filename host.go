package postern

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HostStatus says whether a host may take part.
type HostStatus string

// A suspended host keeps its certificates, none of which is accepted. Those of a
// removed host are revoked; a host of the same name can be invited again.
const (
	HostInvited   HostStatus = "invited" // it has not joined yet
	HostJoined    HostStatus = "joined"
	HostSuspended HostStatus = "suspended"
	HostRemoved   HostStatus = "removed"
)

// Host is a computer that has joined, or may join, this installation: people sign in
// there, or it runs virtual machines. Name is the key.
type Host struct {
	Name    string            `json:"name"`             // a ValidHostName of at most 59 letters
	Names   []string          `json:"names,omitempty"`  // further names and addresses that clients type
	Labels  map[string]string `json:"labels,omitempty"` // an administrator's own words
	Groups  []string          `json:"groups,omitempty"` // sorted, each a ValidName
	Status  HostStatus        `json:"status"`
	Created time.Time         `json:"created"`         // UTC, microseconds
	Joined  time.Time         `json:"joined,omitzero"` // when it last joined
	HostReport
	Heard time.Time `json:"heard,omitzero"` // when HostReport was received
}

// HostReport is what a host says about itself.
type HostReport struct {
	Version  string   `json:"version,omitempty"`  // of its Postern
	Serves   []string `json:"serves,omitempty"`   // "ssh", "libvirt"
	Keys     []string `json:"keys,omitempty"`     // fingerprints of sshd's host keys, SHA256:…
	KRL      int64    `json:"krl,omitempty"`      // version of the SSH revocation list that its sshd reads
	Problems []string `json:"problems,omitempty"` // what is wrong there, each in one line
}

// All returns the names by which clients reach the host, the first of which is Name.
func (h Host) All() []string { return append([]string{h.Name}, h.Names...) }

// Validate reports what is wrong with what an administrator says of a host.
func (h Host) Validate() error {
	if !ValidHostName(h.Name) || len(h.Name) > maxHostName {
		return Errorf(Invalid, "%q cannot be the name of a host", h.Name).
			WithHint("a host name is labels of a-z, 0-9 and hyphens with dots between them, %d letters at most",
				maxHostName)
	}
	for _, n := range h.Names {
		if _, err := netip.ParseAddr(n); err != nil && !ValidHostName(n) {
			return Errorf(Invalid, "%q is neither a host name nor an address", n)
		}
	}
	if len(h.Names) > maxHostNames || len(h.Groups) > maxHostNames || len(h.Labels) > maxHostNames {
		return Errorf(Invalid, "a host has %d names, groups and labels of each kind at most", maxHostNames)
	}
	for _, g := range h.Groups {
		if !ValidName(g) {
			return Errorf(Invalid, "%q cannot be a group's name", g).
				WithHint("a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or a digit")
		}
	}
	for key, value := range h.Labels {
		if !ValidName(key) || len(value) > 128 || strings.ContainsFunc(value, notText) {
			return Errorf(Invalid, "%q cannot be a label", key+"="+value).
				WithHint("a label is NAME=VALUE, the value at most 128 bytes of text")
		}
	}
	return nil
}

// maxHostName leaves room for what stands before a host's name in the CN of its
// certificate, of at most 64 letters (RFC 5280 appendix A.1).
const maxHostName = 59

// maxHostNames bounds the further names, the groups and the labels of a host.
const maxHostNames = 32

func notText(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }

// Clean returns the report with what is no plain text left out, and bounded.
func (r HostReport) Clean() HostReport {
	r.Version = cleanText([]string{r.Version}, 1)[0]
	r.Serves, r.Keys, r.Problems = cleanText(r.Serves, 8), cleanText(r.Keys, 16), cleanText(r.Problems, 64)
	r.KRL = max(r.KRL, 0)
	return r
}

// cleanText returns the first n texts, without control characters, each at most 256
// bytes of valid UTF-8.
func cleanText(list []string, n int) []string {
	list = slices.Clone(list[:min(n, len(list))])
	for i, s := range list {
		s = strings.ToValidUTF8(s[:min(256, len(s))], "")
		list[i] = strings.Map(func(r rune) rune {
			if notText(r) {
				return -1
			}
			return r
		}, s)
	}
	return list
}
