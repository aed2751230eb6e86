package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Sentence returns an event in words: who, with what, from where, did what to
// what, and how it ended. What the event itself does not contain is taken from the
// events joined with it, see [Join].
func Sentence(e postern.Event, joined []postern.Event) string {
	words, counted := did(e)
	s := subjectOf(e, joined, words)
	var b strings.Builder
	b.WriteString(s.who)
	if len(s.with) > 0 {
		fmt.Fprintf(&b, ", %s", list(s.with))
	}
	if s.from != "" {
		fmt.Fprintf(&b, ", from %s", s.from)
	}
	if b.Len() > len(s.who) {
		b.WriteString(",")
	}
	b.WriteString(" " + words)
	if e.Count > 1 && !counted {
		fmt.Fprintf(&b, ", %d times", e.Count)
	}
	if by := e.Details["by"]; by != "" && by != s.who {
		b.WriteString(", by " + by)
	}
	if e.Reason != "" {
		b.WriteString(": " + reason(e))
	}
	switch {
	case e.Took > 0 && e.Outcome == postern.Unknown:
		fmt.Fprintf(&b, "; not answered for %s", Round(e.Took))
	case e.Took > 0:
		fmt.Fprintf(&b, "; answered in %s", Round(e.Took))
	}
	if set, left, ok := strings.Cut(e.Details["rescue"], ", "); ok {
		fmt.Fprintf(&b, "; by a rescue code of the set %s, %s", set, left)
	}
	if clock := e.Details[postern.DetailClock]; clock != "" {
		fmt.Fprintf(&b, "; the host's clock was %s", clock)
	}
	if known := knownBy(e, joined, s.person); known != "" {
		fmt.Fprintf(&b, " (%s)", known)
	}
	b.WriteString(".")
	return b.String()
}

// Summary returns in few words what an event did to what, why, how often and how
// long it took: the last column of a table of events.
func Summary(e postern.Event) string {
	what := strings.TrimSpace(e.Details[Procedure] + " " + e.Object)
	if e.Reason != "" {
		what = strings.TrimPrefix(what+": "+e.Reason, ": ")
	}
	if e.Count > 1 {
		what += fmt.Sprintf(" (%d times)", e.Count)
	}
	if e.Took > 0 {
		what += " (" + Round(e.Took) + ")"
	}
	return what
}

// subject is the beginning of a sentence.
type subject struct {
	who, from string
	person    string // who is a person of this name; "" if it is not known to be one
	with      []string
}

// subjectOf finds who did it, with what and from where. Credentials and the
// address are taken from joined events of the same person that succeeded: a
// refused attempt does not authenticate a person. A credential that the sentence's other
// words name is left out.
func subjectOf(e postern.Event, joined []postern.Event, words string) subject {
	t := subject{who: personOf(e, joined), from: e.Address}
	links := credentialsIn(e, nil)
	links = slices.DeleteFunc(links, func(l postern.Link) bool { return l.ID == e.Object }) // what it was done to
	for _, j := range joined {
		if j.Outcome != postern.OK || j.Person != t.who {
			continue
		}
		links = credentialsIn(j, links)
		if t.from == "" {
			t.from = j.Address
		}
	}
	t.person = t.who
	links = slices.DeleteFunc(links, func(l postern.Link) bool { return strings.Contains(words, l.ID) })
	slices.SortStableFunc(links, func(a, b postern.Link) int { return credentialRank(a) - credentialRank(b) })
	for _, l := range links {
		t.with = append(t.with, credentialNames[credentialRank(l)].name+" "+l.ID)
	}
	if name := e.Details["sasl"]; name != "" && t.who != "" {
		t.with = append(t.with, "SASL user "+name)
	}
	if t.who == "" {
		kind, _ := postern.EventKindOf(e.Kind)
		t.who = cmp.Or(kind.Doer, "an unknown client")
		if kind.FromHost && e.Host != "" && kind.Doer != "" {
			t.who = "the agent"
		}
		switch {
		case e.Details["sasl"] != "":
			t.who = "the SASL user " + e.Details["sasl"]
		case e.Details["tls"] != "":
			t.who = "the TLS client " + e.Details["tls"]
		case e.Details["user"] != "":
			t.who = "the account " + e.Details["user"]
			if unit := e.Details["unit"]; unit != "" {
				t.who += ", in " + unit + ","
			}
		case e.Details["profile"] == "host":
			t.who = "a host"
		case e.Kind == postern.EventSSHCertIssued:
			t.who = "the host " + e.Details["key_id"]
		case e.Details["profile"] == "server":
			t.who = "a server"
		}
	}
	return t
}

// reason returns an event's reason in words: those of a guard are words with hyphens.
func reason(e postern.Event) string {
	if e.Kind == postern.EventAccessRefused {
		return strings.ReplaceAll(e.Reason, "-", " ")
	}
	return e.Reason
}

// fido2Key stands for postern.SSHKey in a link to a key in hardware.
const fido2Key = "fido2-key"

// credentialsIn adds the credentials among an event's links. The key that an SSH
// certificate is for says nothing more, unless it is in hardware.
func credentialsIn(e postern.Event, links []postern.Link) []postern.Link {
	certified := slices.ContainsFunc(e.Links, func(l postern.Link) bool {
		return l.Kind == string(postern.SSHCertificate)
	})
	hardware := strings.HasSuffix(strings.TrimSuffix(e.Details["key_type"], "-CERT"), "-SK") // as sshd logs it
	for _, l := range e.Links {
		switch {
		case l.Kind != string(postern.SSHKey):
		case hardware:
			l.Kind = fido2Key
		case certified:
			continue
		}
		if credentialRank(l) < len(credentialNames) && !slices.Contains(links, l) {
			links = append(links, l)
		}
	}
	return links
}

// credentialNames are the words for credentials, in the order in which a
// sentence names them.
var credentialNames = []struct {
	kind postern.CredentialKind
	name string
}{
	{fido2Key, "FIDO2 key"},
	{postern.YubiKey, "YubiKey"},
	{postern.TOTP, "TOTP"},
	{postern.HOTP, "HOTP"},
	{postern.RecoveryCode, "recovery code"},
	{postern.BackupCode, "backup code"},
	{postern.Passkey, "passkey"},
	{postern.X509Certificate, "certificate"},
	{postern.SSHCertificate, "SSH certificate"},
	{postern.SSHKey, "SSH key"},
}

func credentialRank(l postern.Link) int {
	for i, c := range credentialNames {
		if string(c.kind) == l.Kind {
			return i
		}
	}
	return len(credentialNames)
}

// acmeWords are the words for what an [postern.EventACMEAccount] reports.
var acmeWords = map[string]string{
	postern.ACMECreated:      "made the ACME account %s",
	postern.ACMEChanged:      "changed the contacts of the ACME account %s",
	postern.ACMEDeactivated:  "deactivated the ACME account %s",
	postern.ACMERolledOver:   "gave the ACME account %s another key",
	postern.ACMEKeyMade:      "was given the ACME key %s",
	postern.ACMEKeyEnabled:   "had the ACME key %s enabled",
	postern.ACMEKeyDisabled:  "had the ACME key %s disabled",
	postern.ACMEKeyRecovered: "had the ACME key %s disabled by a recovery",
}

// Procedure is the key of an event's Details that names the call of an
// [postern.EventLibvirtCall].
const Procedure = "procedure"

// did returns what happened in words, and whether they contain the event's count.
func did(e postern.Event) (_ string, counted bool) {
	if e.Kind == postern.EventLibvirtCall {
		return ran(e), false
	}
	kind, _ := postern.EventKindOf(e.Kind)
	words := kind.OK
	if e.Outcome != postern.OK {
		words = kind.NotOK
	} else if e.Kind == postern.EventACMEAccount {
		words = cmp.Or(acmeWords[e.Details["did"]], words)
	} else if e.Kind == postern.EventPAMOpened && e.Details["user"] != "" {
		words = "became %s by {service}"
	}
	switch {
	case words == "" && e.Outcome == postern.OK:
		words = "did " + e.Kind + " on %s"
	case words == "" && e.Outcome == postern.Refused:
		words = "was refused " + e.Kind + " on %s"
	case words == "":
		words = "failed at " + e.Kind + " on %s"
	}
	counted = strings.Contains(words, "#")
	words = strings.NewReplacer("#", strconv.FormatInt(e.Count, 10), "{service}",
		cmp.Or(e.Details["service"], "PAM")).Replace(words)
	before, after, object := strings.Cut(words, "%s")
	switch {
	case !object:
		return words, counted
	case e.Object == "": // leave the words that lead to it out
		for _, lead := range []string{" on ", " for ", " to ", " as ", " of ", ": ", " "} {
			if cut, ok := strings.CutSuffix(before, lead); ok {
				before = cut
				break
			}
		}
	}
	words = before + e.Object + after
	if names := e.Details["names"]; names != "" {
		words += " for " + names
	}
	return words, counted
}

func ran(e postern.Event) string {
	call := e.Details[Procedure]
	if call == "" {
		call = "a libvirt call"
	}
	words := "ran " + call
	if e.Outcome == postern.Refused {
		words = "was refused " + call
	}
	if e.Object != "" {
		words += " on " + e.Object
	}
	switch e.Outcome {
	case postern.Failed:
		words += ", which failed"
	case postern.Unknown:
		words += ", whose outcome is not known"
	}
	return words
}

// list joins words as prose does.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// Round returns a duration in words of at most three digits: "41 ms".
func Round(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "µs"}} {
		if d >= u.unit {
			n := float64(d) / float64(u.unit)
			switch {
			case n < 10 && d%u.unit != 0:
				return fmt.Sprintf("%.1f %s", n, u.name)
			default:
				return fmt.Sprintf("%.0f %s", n, u.name)
			}
		}
	}
	return fmt.Sprintf("%d ns", d)
}
