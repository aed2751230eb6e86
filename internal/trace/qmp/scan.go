package qmp

// scanner walks over JSON without building anything. QEMU's dialect allows
// strings in single quotes.
type scanner struct {
	b      []byte
	i      int
	failed bool // the input ended, or is not JSON
	closed bool // take('}') has succeeded
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\r' || s.b[s.i] == '\t') {
		s.i++
	}
}

func (s *scanner) end() bool {
	s.space()
	return s.i >= len(s.b)
}

// take skips c, where it comes next.
func (s *scanner) take(c byte) bool {
	if s.end() || s.b[s.i] != c {
		return false
	}
	s.i++
	s.closed = c == '}'
	return true
}

// str skips a string and returns it with its quotes; false when it is cut.
func (s *scanner) str() ([]byte, bool) {
	if s.end() {
		s.failed = true
		return nil, false
	}
	quote, start := s.b[s.i], s.i
	for s.i++; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '\\':
			s.i++
		case quote:
			s.i++
			return s.b[start:s.i], true
		}
	}
	s.i = len(s.b)
	s.failed = true
	return s.b[start:], false
}

// key reads a member's name and the colon.
func (s *scanner) key() ([]byte, bool) {
	if s.end() || s.b[s.i] != '"' && s.b[s.i] != '\'' {
		s.failed = true
		return nil, false
	}
	k, ok := s.str()
	if !ok || !s.take(':') {
		s.failed = true
		return nil, false
	}
	return text(k), true
}

// value skips any value and returns its spelling; false when it is cut.
func (s *scanner) value() ([]byte, bool) {
	if s.end() {
		s.failed = true
		return nil, false
	}
	start := s.i
	switch s.b[s.i] {
	case '"', '\'':
		return s.str()
	case '{', '[':
		return s.nested(start)
	}
	for s.i < len(s.b) && !delimiter(s.b[s.i]) {
		s.i++
	}
	if s.i == start {
		s.failed = true
	}
	return s.b[start:s.i], s.i < len(s.b) && s.i > start
}

func (s *scanner) nested(start int) ([]byte, bool) {
	depth := 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"', '\'':
			if _, ok := s.str(); !ok {
				return s.b[start:], false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.i++
		if depth == 0 {
			return s.b[start:s.i], true
		}
	}
	s.failed = true
	return s.b[start:], false
}

func delimiter(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\n', '\r', '\t':
		return true
	}
	return false
}
