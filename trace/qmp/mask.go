package qmp

import "bytes"

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
	"input-data":    true, // guest-exec
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
	values bool // the message sets a property, whose name is elsewhere
}

func (m *masker) run() {
	from := 0
	for m.i < len(m.b) {
		if c := m.b[m.i]; c != '"' && c != '\'' {
			m.i++
			continue
		}
		k, ok := m.str()
		if !ok || !m.take(':') || m.end() {
			continue
		}
		name, c := text(k), m.b[m.i]
		switch {
		case c == '{':
			continue
		case string(name) == "command-line":
			start := m.i
			v, _ := m.value()
			m.dst = append(m.dst, m.b[from:start]...)
			m.dst = append(m.dst, '"')
			m.dst = appendHuman(m.dst, bytes.Trim(v, `"'`))
			m.dst = append(m.dst, '"')
			from = m.i
		case secrets[string(name)] || m.values && string(name) == "value":
			m.dst = append(m.dst, m.b[from:m.i]...)
			m.dst = append(m.dst, `"`+Masked+`"`...)
			m.value()
			from = m.i
		}
	}
	m.dst = append(m.dst, m.b[from:]...)
}

// human lists the words of the human monitor after which nothing is shown.
var human = [][]byte{
	[]byte("passw"), []byte("secret"), []byte("sendkey"), []byte("change vnc"), []byte("block_passwd"),
}

// appendHuman appends a command of the human monitor up to the word that
// carries a secret.
func appendHuman(dst, cmd []byte) []byte {
	lower := bytes.ToLower(cmd)
	for _, w := range human {
		i := bytes.Index(lower, w)
		if i < 0 {
			continue
		}
		end := i + len(w)
		for end < len(cmd) && (cmd[end] == '_' || cmd[end] >= 'a' && cmd[end] <= 'z') {
			end++
		}
		if len(lower) != len(cmd) {
			end = 0
		}
		return append(append(append(dst, cmd[:end]...), ' '), Masked...)
	}
	return append(dst, cmd...)
}
