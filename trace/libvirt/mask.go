package libvirt

import (
	"bytes"

	"github.com/postern-project/postern/trace/qmp"
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
// network disks, secret objects and environments handed to QEMU, systemd
// credentials in SMBIOS strings, passwords of URIs.
var leaks = [...]leak{
	{[]byte("passwd"), assigned},
	{[]byte("password"), assigned},
	{[]byte("passphrase"), assigned},
	{[]byte("<cookie"), element},
	{[]byte("qemu:env"), attribute},
	{[]byte("data="), plain},
	{[]byte("io.systemd.credential"), credential},
	{[]byte("://"), userinfo},
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

// index returns where word comes in text from pos on, or the text's length.
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
		return until(b, i+1, "<")
	}
	if b[i] != '=' && b[i] != ':' {
		return -1, 0
	}
	colon := b[i] == ':'
	i = skip(b, i+1, " \t\r\n")
	if i < len(b) && (b[i] == '\'' || b[i] == '"') {
		return until(b, i+1, string(b[i]))
	}
	if colon {
		return -1, 0
	}
	return until(b, i, ", \t\n'\"<&;")
}

// element finds the text of an element whose name has just ended.
func element(b []byte, _ bool) (int, int) {
	i := bytes.IndexAny(b, "<>")
	if i < 0 || b[i] != '>' || b[0] == 's' || i > 0 && b[i-1] == '/' { // <cookies> holds them
		return -1, 0
	}
	return until(b, i+1, "<")
}

// attribute finds the value of the attribute value='…' before the tag ends.
func attribute(b []byte, _ bool) (int, int) {
	end := bytes.IndexAny(b, "<>")
	if end < 0 {
		end = len(b)
	}
	i := bytes.Index(b[:end], []byte("value"))
	if i < 0 {
		return -1, 0
	}
	i = skip(b, i+len("value"), " =")
	if i >= len(b) {
		return -1, 0
	}
	return until(b, i+1, string(b[i]))
}

// plain finds what stands after a = on QEMU's command line.
func plain(b []byte, _ bool) (int, int) { return until(b, 0, ", \n'\"<&") }

// credential finds what follows the name in a systemd credential.
func credential(b []byte, _ bool) (int, int) {
	i := bytes.IndexAny(b, "=<")
	if i < 0 || b[i] == '<' {
		return -1, 0
	}
	return until(b, i+1, "<\"'")
}

// userinfo finds the password in //user:password@host.
func userinfo(b []byte, cut bool) (int, int) {
	end := bytes.IndexAny(b, "/?#'\" \n<>")
	open := end < 0
	if open {
		end = len(b)
	}
	at := bytes.LastIndexByte(b[:end], '@')
	if at < 0 && open && cut {
		at = end
	}
	if at < 0 {
		return -1, 0
	}
	colon := bytes.IndexByte(b[:at], ':')
	if colon < 0 {
		return -1, 0
	}
	return colon + 1, at
}

func skip(b []byte, i int, set string) int {
	for i < len(b) && bytes.IndexByte([]byte(set), b[i]) >= 0 {
		i++
	}
	return i
}

// until returns from and the index of the first byte of stop after it, or the
// end: what was cut off is secret too.
func until(b []byte, from int, stop string) (int, int) {
	if i := bytes.IndexAny(b[from:], stop); i >= 0 {
		return from, from + i
	}
	return from, len(b)
}
