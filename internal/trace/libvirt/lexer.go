package libvirt

import (
	"fmt"
	"strings"
)

// word is a word or a mark of a protocol file, with the comment before it.
type word struct {
	text    string
	comment string
	line    int
}

const blanks = " \t\r\n\f\v"

// words splits a protocol file: XDR's language (RFC 4506, section 6), in which lines that
// begin with % or # are for the C compiler.
func words(text string) (list []word, err error) {
	line, comment := 1, ""
	for begins := true; text != ""; {
		n := 1
		switch c := text[0]; {
		case begins && (c == '%' || c == '#'):
			n = len(text)
			if i := strings.IndexByte(text, '\n'); i >= 0 {
				n = i
			}
		case strings.IndexByte(blanks, c) >= 0:
		case strings.HasPrefix(text, "/*"):
			end := strings.Index(text[2:], "*/")
			if end < 0 {
				return nil, fmt.Errorf("line %d: this comment has no end", line)
			}
			n = end + 4
			comment = text[:n]
		case inName(c) || c == '-':
			for n < len(text) && inName(text[n]) {
				n++
			}
			list = append(list, word{text[:n], comment, line})
			comment = ""
		case strings.IndexByte("{}()[]<>=;,:*", c) >= 0:
			list = append(list, word{text[:1], comment, line})
			comment = ""
		default:
			return nil, fmt.Errorf("line %d: %q is not of the language of protocol files", line, c)
		}
		line += strings.Count(text[:n], "\n")
		begins = text[n-1] == '\n'
		text = text[n:]
	}
	return list, nil
}

func inName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
