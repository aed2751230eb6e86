package otp

import (
	"crypto/aes"
	"encoding/hex"
	"strings"
	"testing"
)

// The vectors are those of yubico-c: its self-test and test-vectors.txt.

func TestModhexVectors(t *testing.T) {
	for _, c := range []struct{ plain, modhex string }{
		{"test", "ifhgieif"},
		{"foobar", "hhhvhvhdhbid"},
		{"\x2d\x34\x4e\x83", "dteffuje"},
		{"\x69\xb6\x48\x1c\x8b\xab\xa2\xb6\x0e\x8f\x22\x17\x9b\x58\xcd\x56", "hknhfjbrjnlnldnhcujvddbikngjrtgh"},
		{"\xec\xde\x18\xdb\xe7\x6f\xbd\x0c\x33\x33\x0f\x1c\x35\x48\x71\xdb", "urtubjtnuihvntcreeeecvbregfjibtn"},
		{"", ""},
	} {
		if got := EncodeModhex([]byte(c.plain)); got != c.modhex {
			t.Errorf("EncodeModhex(%q) = %q, want %q", c.plain, got, c.modhex)
		}
		for _, in := range []string{c.modhex, strings.ToUpper(c.modhex)} {
			if got := make([]byte, len(c.plain)); !decodeModhex(got, in) || string(got) != c.plain {
				t.Errorf("decodeModhex(%q) = %q, want %q", in, got, c.plain)
			}
		}
	}
	for _, bad := range []string{"cbdef0ghijklnrtuv0", "cbd", "0123", "cb d", "äb"} {
		if got := make([]byte, len(bad)/2); decodeModhex(got, bad) {
			t.Errorf("decodeModhex(%q) = %q", bad, got)
		}
	}
	if !isModhex("cbdefghijklnrtuv") || isModhex("cbdef0ghijklnrtuv") {
		t.Error("isModhex is wrong about yubico-c's two strings")
	}
}

func TestCRCVectors(t *testing.T) {
	for _, c := range []struct {
		in   string
		want uint16
	}{
		{"\x00\x01\x02\x03\x04", 62919},
		{"\xfe", 4470},
		{"\x55\xaa\x00\xff", 52149},
		{"\x01\x02\x03\x04\x05\x06\x30\x75\x00\x09\x3d\xfa\x60\xea", 35339},
		{"\x87\x92\xeb\xfe\x26\xcc\x13\x00\x30\xc2\x00\x11\xc8\x9f\x23\xc8", crcResidue},
	} {
		if got := crc16([]byte(c.in)); got != c.want {
			t.Errorf("crc16(%x) = %d, want %d", c.in, got, c.want)
		}
	}
}

func TestAESVector(t *testing.T) {
	block, _ := aes.NewCipher([]byte("abcdef0123456789"))
	b := []byte("0123456789abcdef")
	block.Decrypt(b, b)
	if got := hex.EncodeToString(b); got != "838a467f34639551755bd32a4a2f15e1" {
		t.Errorf("decrypted %s", got)
	}
}

func TestCodeVectors(t *testing.T) {
	const seq = "000102030405060708090a0b0c0d0e0f"
	for _, c := range []struct {
		key  string
		tok  Token
		code string
		crc  uint16
	}{
		{seq, Token{[6]byte{1, 2, 3, 4, 5, 6}, 1, false, 1<<16 | 1, 1, 0}, "dvgtiblfkbgturecfllberrvkinnctnn", 0xfe36},
		{seq, Token{[6]byte{1, 2, 3, 4, 5, 6}, 1, false, 1<<16 | 1, 2, 0}, "rnibcnfhdninbrdebccrndfhjgnhftee", 0x1152},
		{
			seq,
			Token{[6]byte{1, 2, 3, 4, 5, 6}, 0xfff, false, 1<<16 | 1, 1, 0},
			"iikkijbdknrrdhfdrjltvgrbkkjblcbh",
			0x9454,
		},
		{strings.Repeat("88", 16), Token{
			[6]byte{0x88, 0x88, 0x88, 0x88, 0x88, 0x88},
			0x0888, true, 0x888888, 0x88,
			0x8888,
		}, "dcihgvrhjeucvrinhdfddbjhfjftjdei", 0xd3b6},
		{strings.Repeat("00", 16), Token{}, "kkkncjnvcnenkjvjgncjihljiibgbhbh", 0xa96a},
		{"c44228906530 76cde73d449b191b416a", Token{
			[6]byte{0x33, 0xc6, 0x9e, 0x7f, 0x24, 0x9e},
			1, false, 0x2413a7,
			0, 0xc63c,
		}, "iucvrkjiegbhidrcicvlgrcgkgurhjnj", 0x1c86},
		{"ecde18dbe76fbd0c33330f1c354871db", Token{
			[6]byte{0x87, 0x92, 0xeb, 0xfe, 0x26, 0xcc},
			19, false, 49712, 17,
			40904,
		}, "dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh", 51235},
	} {
		key, err := hex.DecodeString(strings.ReplaceAll(c.key, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		plain := c.tok.plain()
		if crc := uint16(plain[14]) | uint16(plain[15])<<8; crc != c.crc {
			t.Errorf("%s: CRC %#x, want %#x", c.code, crc, c.crc)
		}
		code, ok := ParseCode(c.code)
		if !ok {
			t.Fatalf("%s does not parse", c.code)
		}
		if got, ok := code.Open(block, c.tok.PrivateID); !ok || got != c.tok {
			t.Errorf("%s opens to %+v, %v, want %+v", c.code, got, ok, c.tok)
		}
		if got := c.tok.Seal(block, code.PublicID); got != code || got.Modhex() != c.code {
			t.Errorf("%+v seals to %s, want %s", c.tok, got.Modhex(), c.code)
		}
		if _, ok := code.Open(block, [6]byte{9}); ok {
			t.Errorf("%s opens under another private ID", c.code)
		}
		code.Block[0] ^= 1
		if _, ok := code.Open(block, c.tok.PrivateID); ok {
			t.Errorf("%s opens with a bit turned", c.code)
		}
	}
}

func TestCodesAreOrderedByCounterThenUse(t *testing.T) {
	order := []Token{
		{Counter: 0},
		{Use: 1},
		{Use: 255},
		{Counter: 1},
		{Counter: 1, CapsLock: true, Use: 1},
		{Counter: counterMask, Use: 255},
	}
	for i := 1; i < len(order); i++ {
		if order[i-1].Seq() >= order[i].Seq() {
			t.Errorf("%+v does not come before %+v", order[i-1], order[i])
		}
	}
}

func TestReadingsAcrossLayouts(t *testing.T) {
	const code = "cbdefghijklnrtuvvutrnlkjihgfedbccbdefghijklnrtuv"
	want, ok := ParseCode(code)
	if !ok {
		t.Fatal("the code does not parse")
	}
	typed := map[string]string{
		"QWERTY":   code,
		"capitals": strings.ToUpper(code),
		"newline":  " " + code + "\r\n",
		"dvorak shifted": strings.ReplaceAll(strings.ToUpper(strings.NewReplacer(
			"c", "j", "b", "x", "d", "e", "e", ".", "f", "u", "g", "i", "h", "d", "i", "c", "j", "h",
			"k", "t", "l", "n", "n", "b", "r", "p", "t", "y", "u", "g", "v", "k").Replace(code)), ".", ">"),
	}
	for _, l := range layouts {
		var b strings.Builder
		letters := []rune(l.letters)
		if len(letters) != len(alphabet) {
			t.Fatalf("%s has %d letters", l.name, len(letters))
		}
		for i := range len(code) {
			b.WriteRune(letters[strings.IndexByte(alphabet, code[i])])
		}
		typed[l.name] = b.String()
		typed[l.name+" in capitals"] = strings.ToUpper(b.String())
	}
	for name, in := range typed {
		found := false
		for _, c := range Readings(in) {
			found = found || c == want
		}
		if !found {
			t.Errorf("%s: %q is not read as the code", name, in)
		}
	}
	for _, bad := range []string{
		"", "123456", code + "c", code[:31], strings.Repeat("é", 48),
		strings.Repeat("x", 4096),
	} {
		if got := Readings(bad); got != nil {
			t.Errorf("Readings(%q) = %v", bad, got)
		}
	}
}

func TestCodeDoesNotPrintItself(t *testing.T) {
	c, _ := ParseCode("dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh")
	if s := c.String(); strings.Contains(s, "hknh") || !strings.HasPrefix(s, "dteffuje") {
		t.Errorf("String gives %q", s)
	}
}

func FuzzReadings(f *testing.F) {
	for _, s := range []string{
		"dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh", "cbdefghijklnrtuvcbdefghijklnrtuv",
		"jxe.uidchtnbpygkjxe.uidchtnbpygk", "сивуапршолдткегмсивуапршолдткегм", "\xff\xfe", "ı",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range Readings(s) {
			again, ok := ParseCode(c.Modhex())
			if !ok || again != c {
				t.Fatalf("%q is read as %q, which does not parse to itself", s, c.Modhex())
			}
		}
	})
}
