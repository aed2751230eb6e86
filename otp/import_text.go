package otp

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/postern-project/postern"
)

// IsSQLite reports whether a file that begins with b is an SQLite database.
// See https://sqlite.org/fileformat.html
func IsSQLite(b []byte) bool { return bytes.HasPrefix(b, []byte("SQLite format 3\x00")) }

// plainText returns a file's text as UTF-8 without a byte order mark. UTF-16 is
// known by its mark, or by every other byte of the first letters being zero.
func plainText(b []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		b = b[3:]
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		return utf16Text(b[2:], binary.LittleEndian)
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		return utf16Text(b[2:], binary.BigEndian)
	case len(b) >= 4 && b[0] != 0 && b[1] == 0 && b[2] != 0 && b[3] == 0:
		return utf16Text(b, binary.LittleEndian)
	case len(b) >= 4 && b[0] == 0 && b[1] != 0 && b[2] == 0 && b[3] != 0:
		return utf16Text(b, binary.BigEndian)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, postern.Errorf(postern.Invalid, "the file is not text")
	}
	return b, nil
}

func utf16Text(b []byte, order binary.ByteOrder) ([]byte, error) {
	if len(b)%2 != 0 {
		return nil, postern.Errorf(postern.Invalid, "the file is cut in the middle of a letter")
	}
	text := make([]byte, 0, len(b)/2)
	for len(b) > 0 {
		r := rune(order.Uint16(b))
		b = b[2:]
		if utf16.IsSurrogate(r) && len(b) >= 2 {
			r = utf16.DecodeRune(r, rune(order.Uint16(b)))
			b = b[2:]
		}
		text = utf8.AppendRune(text, r)
	}
	return text, nil
}
