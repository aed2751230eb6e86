package otp

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// layouts lists what other keyboard layouts type for a YubiKey's key strokes: for each
// letter of the modhex alphabet, in its order, the character at that key. Layouts with
// all sixteen letters in place (QWERTY, QWERTZ, AZERTY, most Latin ones) are not listed;
// modhex was made for them.
var layouts = []struct{ name, letters string }{
	{"Dvorak", "jxe.uidchtnbpygk"},
	{"Colemak", "cbsftdhuneikpglv"},
	{"Colemak-DH", "cvsftgmuneikpbld"},
	{"Workman", "mvhrtgyuneokwbfc"},
	{"Bépo", "xkipe,cdtsr'oèv."},
	{"Neo", "äzaleosgnrtbcwhp"},
	{"Turkish Q", "cbdefghıjklnrtuv"},
	{"Turkish F", "vçeğaütnkmlzıorc"},
	{"Russian", "сивуапршолдткегм"},
	{"Greek", "ψβδεφγηιξκλνρτθω"},
	{"Hebrew", "בנגקכעיןחלךמראוה"},
}

// aliases are further characters of some of these keys: with shift, in another variant
// of the layout, or after a Turkish dotless capital was converted to a small letter.
var aliases = map[rune]rune{'>': '.', '’': '\'', 'i': 'ı'}

// modhexOf maps what each layout types back to modhex.
var modhexOf = func() []map[rune]byte {
	tables := make([]map[rune]byte, len(layouts))
	for i, l := range layouts {
		table := make(map[rune]byte, len(alphabet))
		for _, r := range l.letters {
			table[r] = alphabet[len(table)]
		}
		for typed, means := range aliases {
			_, taken := table[typed]
			if c, ok := table[means]; ok && !taken {
				table[typed] = c
			}
		}
		tables[i] = table
	}
	return tables
}()

// Readings returns every code that typed may be, the most likely first: as it is, then
// as typed on each other keyboard layout. White space around it and capitals do not
// matter. It returns nil if typed cannot be an OTP. Only decryption shows which reading
// is right, so a caller tries them in order.
func Readings(typed string) []Code {
	typed = strings.TrimSpace(typed)
	if len(typed) < blockLetters || len(typed) > maxCodeBytes {
		return nil
	}
	var all []Code
	add := func(c Code, ok bool) {
		if ok {
			all = append(all, c)
		}
	}
	add(parseModhex(typed))
	for _, table := range modhexOf {
		add(parseLayout(typed, table))
	}
	return all
}

func parseLayout(typed string, table map[rune]byte) (Code, bool) {
	var letters [maxCode]byte
	n := 0
	for len(typed) > 0 {
		r, size := utf8.DecodeRuneInString(typed)
		c, ok := table[unicode.ToLower(r)]
		if !ok || n == maxCode {
			return Code{}, false
		}
		letters[n] = c
		n++
		typed = typed[size:]
	}
	return parseModhex(string(letters[:n]))
}
