package qmp

import (
	"bytes"
	"encoding/json"
)

// Masked stands in the place of a secret.
const Masked = "***"

// secrets are the members whose values are never shown unless asked for:
// passwords, keys and typed input, of QEMU's commands and of the guest agent's.
var secrets = map[string]bool{
	"password":      true, // set_password, change-vnc-password, guest-set-user-password
	"passwd":        true,
	"new-password":  true,
	"secret":        true, // sev-inject-launch-secret
	"packet-header": true,
	"data":          true, // object-add of a secret; an event's data is an object and is looked into
	"cookie":        true, // blockdev-add over HTTP
	"keys":          true, // send-key
	"events":        true, // input-send-event
	"args":          true, // migrate over a command
	"arg":           true, // guest-exec: what the guest runs
	"env":           true,
	"input-data":    true,
	"out-data":      true, // guest-exec-status
	"err-data":      true,
	"buf-b64":       true, // guest-file-write, guest-file-read
}

// AppendMasked appends msg, a message of the monitor or the guest agent or a
// part of one from its beginning, with the secrets in it masked. What is not
// JSON is taken for a command of the human monitor.
func AppendMasked(dst, msg []byte) []byte {
	s := scanner{b: msg}
	if s.end() || s.b[s.i] != '{' && s.b[s.i] != '[' {
		return appendHuman(dst, msg)
	}
	m := masker{scanner: s, dst: dst, values: bytes.Contains(msg, []byte("qom-set"))}
	m.run()
	return m.dst
}

// AppendMaskedBody appends the message's body with the secrets in it masked.
func (m *Message) AppendMaskedBody(dst []byte) []byte {
	w := masker{scanner: scanner{b: m.Body}, dst: dst, values: bytes.HasPrefix(m.Name, []byte("qom-set"))}
	w.run()
	return w.dst
}

type masker struct {
	scanner
	dst    []byte
	from   int  // what has not been appended yet
	values bool // the message sets a property, whose name is elsewhere
}

func (m *masker) run() {
	for m.i < len(m.b) {
		if c := m.b[m.i]; c != '"' && c != '\'' {
			m.i++
			continue
		}
		start := m.i
		s, whole := m.str()
		if !whole || !m.take(':') {
			if clean, changed := cleanString(s, whole); changed {
				m.put(start, start+len(s), clean)
			}
			continue
		}
		if m.end() || m.b[m.i] == '{' {
			continue
		}
		start = m.i
		switch name := string(text(s)); {
		case name == "command-line":
			v, whole := m.value()
			m.put(start, m.i, quoted(appendHuman(nil, unquoted(v, whole))))
		case secrets[name] || m.values && name == "value":
			m.value()
			m.put(start, m.i, []byte(`"`+Masked+`"`))
		}
	}
	m.dst = append(m.dst, m.b[m.from:]...)
}

// put appends what comes before start, and text instead of what is between start
// and end.
func (m *masker) put(start, end int, text []byte) {
	m.dst = append(append(m.dst, m.b[m.from:start]...), text...)
	m.from = end
}

// cleanString returns a string's value without the secrets in it, quoted: JSON
// inside, as QEMU's block layer has it behind json:, commands, and passwords of
// URLs.
func cleanString(s []byte, whole bool) (clean []byte, changed bool) {
	t := unquoted(s, whole)
	if at := embedded(t); at >= 0 {
		if !whole {
			return quoted(append(bytes.Clone(t[:at]), Masked...)), true
		}
		clean = AppendMasked(bytes.Clone(t[:at]), t[at:])
	} else if bytes.HasPrefix(t, []byte("exec:")) {
		clean = []byte("exec:" + Masked)
	} else {
		clean = AppendWithoutPasswords(nil, t, !whole)
	}
	if bytes.Equal(clean, t) {
		return s, false
	}
	return quoted(clean), true
}

// embedded returns where JSON begins in a text, or -1.
func embedded(t []byte) int {
	if len(t) > 0 && (t[0] == '{' || t[0] == '[') {
		return 0
	}
	if at := bytes.Index(t, []byte("json:{")); at >= 0 {
		return at + len("json:")
	}
	return -1
}

// unquoted returns what a string says, of one that is cut without an escape that
// is not whole.
func unquoted(s []byte, whole bool) []byte {
	if i := bytes.LastIndexByte(s, '\\'); !whole && i >= 0 && len(s)-i < len(`\u0000`) {
		s = s[:i]
	}
	return text(s)
}

func quoted(t []byte) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(string(t)) != nil {
		return []byte(`"` + Masked + `"`)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// human lists the words of the human monitor after which nothing is shown.
var human = [][]byte{
	[]byte("passw"), []byte("secret"), []byte("sendkey"), []byte("change vnc"), []byte("qom-set"), []byte("data="),
	[]byte("string="), []byte("cookie"), []byte("exec:"), []byte("json:"),
}

// appendHuman appends a command of the human monitor up to the first word that
// carries a secret.
func appendHuman(dst, cmd []byte) []byte {
	lower := bytes.ToLower(cmd)
	if len(lower) != len(cmd) {
		return append(dst, Masked...)
	}
	end := -1
	for _, w := range human {
		if i := bytes.Index(lower, w); i >= 0 && (end < 0 || i+len(w) < end) {
			end = i + len(w)
		}
	}
	if end < 0 {
		return AppendWithoutPasswords(dst, cmd, true)
	}
	for end < len(cmd) && letter(cmd[end-1]) && letter(cmd[end]) {
		end++
	}
	return append(append(AppendWithoutPasswords(dst, cmd[:end], true), ' '), Masked...)
}

func letter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' }

// AppendWithoutPasswords appends a text with the passwords in its URLs masked.
// Of one that is cut, what may be the beginning of a password is one.
func AppendWithoutPasswords(dst, text []byte, cut bool) []byte {
	for {
		i := bytes.Index(text, []byte("://"))
		if i < 0 {
			return append(dst, text...)
		}
		dst, text = append(dst, text[:i+3]...), text[i+3:]
		if from, to := Password(text, cut); from >= 0 {
			dst, text = append(append(dst, text[:from]...), Masked...), text[to:]
		}
	}
}

// Password finds the password in a URL behind its ://, user:password@host; from
// is -1 when there is none.
func Password(b []byte, cut bool) (from, to int) {
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
