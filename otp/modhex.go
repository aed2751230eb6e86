package otp

// alphabet has the sixteen letters of modhex in the order of their values. They are at
// the same keys of most Latin keyboards.
const alphabet = "cbdefghijklnrtuv"

const notModhex = 0xff

// nibbles maps a byte to its modhex value, or to notModhex. Capitals are accepted.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = notModhex
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
		t[alphabet[i]-'a'+'A'] = byte(i)
	}
	return t
}()

// EncodeModhex returns b in modhex, two letters a byte.
func EncodeModhex(b []byte) string {
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, alphabet[c>>4], alphabet[c&15])
	}
	return string(out)
}

// decodeModhex fills dst from twice as many letters and reports whether s is
// exactly that.
func decodeModhex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := nibbles[s[2*i]], nibbles[s[2*i+1]]
		if hi|lo == notModhex {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

// isModhex reports whether s is made of small modhex letters only.
func isModhex(s string) bool {
	for i := range len(s) {
		if nibbles[s[i]] == notModhex || s[i] < 'a' {
			return false
		}
	}
	return true
}

// ValidPublicID reports whether s can be a key's public ID: 1 to 16 small modhex
// letters. (A key may also have none; such keys cannot be distinguished and are not
// stored.)
func ValidPublicID(s string) bool { return len(s) >= 1 && len(s) <= 16 && isModhex(s) }
