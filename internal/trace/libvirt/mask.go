package libvirt

import (
	"bytes"

	"github.com/postern-project/postern/internal/trace/qmp"
)

// masked stands in the place of a secret.
const masked = qmp.Masked

// secretName reports whether a typed parameter of this name is a secret: the
// token with which daemons vouch for a caller, a launch secret, a password.
func secretName(name []byte) bool {
	return bytes.Equal(name, []byte("token")) || bytes.HasSuffix(name, []byte(".token")) ||
		bytes.Contains(name, []byte("passw")) || bytes.Contains(name, []byte("secret"))
}

// A leak is a word in a text after which a secret may come, and how far that
// goes.
type leak struct {
	word []byte
	// find looks at what follows the word, of a text that may be cut; from < 0
	// for nothing.
	find func(rest []byte, cut bool) (from, to int)
}

// leaks are the places where domain XML, QEMU's command line and URIs carry
// secrets: the passwords of VNC, SPICE and old storage pools, HTTP cookies of
// network disks, secret objects, environments and firmware configuration handed
// to QEMU, whatever prefix its namespace has, environments of containers, systemd
// credentials in SMBIOS strings, cloud-init's and Ignition's instructions,
// passwords of URIs.
var leaks = [...]leak{
	{[]byte("passwd"), assigned},
	{[]byte("password"), assigned},
	{[]byte("passphrase"), assigned},
	{[]byte("token"), assigned},
	{[]byte("<cookie"), element},
	{[]byte("<initenv"), element},
	{[]byte("<entry"), entry},
	{[]byte("<env"), environment},
	{[]byte(":env"), environment},
	{[]byte("<arg"), argument},
	{[]byte(":arg"), argument},
	{[]byte("cookie="), plain},
	{[]byte("data="), plain},
	{[]byte(`"data"`), assigned},
	{[]byte("string="), plain},
	{[]byte("io.systemd.credential"), credential},
	{[]byte("#cloud-config"), document},
	{[]byte(`"ignition"`), document},
	{[]byte("://"), qmp.Password},
}

// leaky reports whether text may hold a secret.
func leaky(text []byte) bool {
	for i := range leaks {
		if bytes.Contains(text, leaks[i].word) {
			return true
		}
	}
	return false
}

// appendClean appends text with the secrets in it masked. Of a text that is cut
// what may be a secret's beginning is one.
func appendClean(dst, text []byte, cut bool) []byte {
	var next [len(leaks)]int // where each word comes next, from pos on
	for i := range leaks {
		next[i] = index(text, 0, leaks[i].word)
	}
	for pos := 0; ; {
		first := 0
		for i := range leaks {
			if next[i] < pos {
				next[i] = index(text, pos, leaks[i].word)
			}
			if next[i] < next[first] {
				first = i
			}
		}
		if next[first] == len(text) {
			return append(dst, text[pos:]...)
		}
		after := next[first] + len(leaks[first].word)
		from, to := leaks[first].find(text[after:], cut)
		if from < 0 {
			dst, pos = append(dst, text[pos:after]...), after
			continue
		}
		dst = append(append(dst, text[pos:after+from]...), masked...)
		pos = after + to
	}
}

// index returns where word is in text from pos on, or the text's length.
func index(text []byte, pos int, word []byte) int {
	if i := bytes.Index(text[pos:], word); i >= 0 {
		return pos + i
	}
	return len(text)
}

// assigned finds the value in ='v', = "v", =v, ": "v" and >v<.
func assigned(b []byte, _ bool) (int, int) {
	i := skip(b, 0, "\"' \t\r\n")
	if i >= len(b) {
		return -1, 0
	}
	if b[i] == '>' {
		return i + 1, untilTag(b, i+1)
	}
	if b[i] != '=' && b[i] != ':' {
		return -1, 0
	}
	colon := b[i] == ':'
	i = skip(b, i+1, " \t\r\n")
	if i < len(b) && (b[i] == '\'' || b[i] == '"') {
		return i + 1, closing(b, i)
	}
	if colon {
		return -1, 0
	}
	return i, rest(b, i)
}

// element finds the text of an element whose name has just ended.
func element(b []byte, _ bool) (int, int) {
	i := bytes.IndexAny(b, "<>")
	if i < 0 || b[i] != '>' || b[0] == 's' || i > 0 && b[i-1] == '/' { // <cookies> holds them
		return -1, 0
	}
	return i + 1, untilTag(b, i+1)
}

// entry finds the text of an entry of firmware configuration, whose name is a
// path: opt/com.coreos/config.
func entry(b []byte, cut bool) (int, int) {
	tag := b
	if i := bytes.IndexAny(b, "<>"); i >= 0 {
		tag = b[:i]
	}
	if from, to := attribute(b, "name"); from < 0 || bytes.IndexByte(tag[min(from, len(tag)):min(to, len(tag))],
		'/') < 0 {
		return -1, 0
	}
	return element(b, cut)
}

// environment finds the value of a variable.
func environment(b []byte, _ bool) (int, int) { return attribute(b, "value") }

// argument finds an argument of a command line, if it may hold a secret: QEMU's
// options have too many ways to quote for showing the rest of it.
func argument(b []byte, _ bool) (int, int) {
	from, to := attribute(b, "value")
	if from < 0 {
		return -1, 0
	}
	value := bytes.ToLower(b[from:to])
	for _, w := range [...]string{
		"secret", "passw", "passphrase", "token", "cookie", "data", "string=", "key",
		"credential", "ignition", "#cloud-config",
	} {
		if bytes.Contains(value, []byte(w)) {
			return from, to
		}
	}
	return -1, 0
}

// attribute finds the value of an attribute of the tag whose name has just ended.
func attribute(b []byte, name string) (int, int) {
	for i := 0; i < len(b) && b[i] != '<' && b[i] != '>'; {
		eq := bytes.IndexAny(b[i:], "=<>")
		if eq < 0 || b[i+eq] != '=' {
			break
		}
		found := string(bytes.TrimSpace(b[i:i+eq])) == name
		i = skip(b, i+eq+1, " \t\r\n")
		if i >= len(b) || b[i] != '"' && b[i] != '\'' {
			break
		}
		end := len(b)
		if n := bytes.IndexByte(b[i+1:], b[i]); n >= 0 {
			end = i + 1 + n
		}
		if found {
			return i + 1, end
		}
		i = end + 1
	}
	return -1, 0
}

// plain finds what stands after a = on QEMU's command line.
func plain(b []byte, _ bool) (int, int) { return 0, rest(b, 0) }

// document finds the rest of a text that is secret as a whole.
func document(b []byte, _ bool) (int, int) { return 0, untilTag(b, 0) }

// credential finds what follows the name in a systemd credential.
func credential(b []byte, _ bool) (int, int) {
	i := bytes.IndexAny(b, "=<")
	if i < 0 || b[i] == '<' {
		return -1, 0
	}
	return i + 1, rest(b, i+1)
}

func skip(b []byte, i int, set string) int {
	for i < len(b) && bytes.IndexByte([]byte(set), b[i]) >= 0 {
		i++
	}
	return i
}

// closing returns where the string ends whose quote is at i. What was cut off is
// secret too.
func closing(b []byte, i int) int {
	for j := i + 1; j < len(b); j++ {
		switch b[j] {
		case '\\':
			j++
		case b[i]:
			return j
		}
	}
	return len(b)
}

// untilTag returns where the text from i on ends: at an element's end, since
// there may be a CDATA section in it.
func untilTag(b []byte, i int) int {
	if n := bytes.Index(b[i:], []byte("</")); n >= 0 {
		return i + n
	}
	return len(b)
}

// rest returns where an option ends whose value begins at i and stands in no
// quotes of its own: at the line's or the text's end, or at a quote that does not
// look like a part of it. A comma does not end it, since two stand for one.
func rest(b []byte, i int) int {
	for j := i; j < len(b); j++ {
		switch b[j] {
		case '\n', '<':
			return j
		case '"', '\'':
			if j+1 == len(b) || bytes.IndexByte([]byte(" \t\r\n/>,;:.)}]"), b[j+1]) >= 0 {
				return j
			}
		}
	}
	return len(b)
}
