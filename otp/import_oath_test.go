package otp

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/postern-project/postern"
)

// The secrets of the vectors of RFC 4226, appendix D, and RFC 6238, appendix B.
const (
	seed1   = "12345678901234567890"
	seed256 = "12345678901234567890123456789012"
	seed512 = "1234567890123456789012345678901234567890123456789012345678901234"

	base1   = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	base256 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA===="
	base512 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNA="
	hex1    = "3132333435363738393031323334353637383930"
)

// made is what an authenticator must make: its code at 59 seconds after the
// epoch, or the next one.
type made struct{ account, kind, code string }

var (
	sha1Code   = made{"alice", "totp", "94287082"}
	sha256Code = made{"bob", "totp", "46119246"}
	sha512Code = made{"carol", "totp", "90693936"}
	firstHOTP  = made{"dave", "hotp", "755224"}
)

func TestAuthenticatorsAreImportedFromEveryFormat(t *testing.T) {
	for _, f := range oathFiles() {
		t.Run(f.row, func(t *testing.T) {
			for name, in := range encodings(f.in) {
				f.check(t, name, in)
			}
		})
	}
}

// encodings returns a text as editors and Windows write it.
func encodings(text string) map[string]string {
	wide := utf16.Encode([]rune(text))
	little, big := []byte("\xff\xfe"), []byte("\xfe\xff")
	for _, u := range wide {
		little, big = binary.LittleEndian.AppendUint16(little, u), binary.BigEndian.AppendUint16(big, u)
	}
	return map[string]string{
		"as it is": text, "CRLF": strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n"),
		"UTF-8 with a mark": "\xef\xbb\xbf" + text, "UTF-16LE": string(little), "UTF-16BE": string(big),
		"UTF-16LE without a mark": string(little[2:]), "UTF-16BE without a mark": string(big[2:]),
	}
}

func (f oathFile) check(t *testing.T, name, in string) {
	im, err := ReadImport(strings.NewReader(in), f.options)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	var got []made
	for _, o := range im.OATH {
		if o.Kind == postern.HOTP && strings.HasPrefix(f.row, "PSKC, with") {
			o.Digits = 6 // the RFC has 8, its appendix D has 6
		}
		got = append(got, made{o.Account, string(o.Kind), o.Code(time.Unix(59, 0))})
	}
	if fmt.Sprint(got) != fmt.Sprint(f.want) {
		t.Errorf("%s: imported %v, want %v; %v", name, got, f.want, im.Skipped)
	}
	var skipped []string
	for _, s := range im.Skipped {
		skipped = append(skipped, s.Place)
		if strings.Contains(s.Why, base1) || strings.Contains(s.Why, hex1) || strings.Contains(s.Why, seed1) {
			t.Errorf("%s: the reason has the secret in it", name)
		}
	}
	if fmt.Sprint(skipped) != fmt.Sprint(f.skipped) {
		t.Errorf("%s: skipped %v, want %v", name, im.Skipped, f.skipped)
	}
}

// TestDocumentationListsEveryFormat holds the table of docs/import.md against
// the tests of this file and of import_test.go.
func TestDocumentationListsEveryFormat(t *testing.T) {
	text, err := os.ReadFile("../docs/import.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+?) +\|`).FindAllSubmatch(text, -1) {
		documented[string(m[1])] = true
	}
	tested := map[string]bool{"from": true, "---": true}
	for _, f := range oathFiles() {
		tested[f.row] = true
	}
	for _, f := range yubicoFiles {
		tested[f.row] = true
	}
	for row := range tested {
		if !documented[row] {
			t.Errorf("docs/import.md does not list %q", row)
		}
	}
	for row := range documented {
		if !tested[row] {
			t.Errorf("docs/import.md lists %q, which no test has", row)
		}
	}
}

func TestImportTellsWhatIsMissingOrWrong(t *testing.T) {
	password := func(s string) ImportOptions {
		return ImportOptions{Password: func() ([]byte, error) { return []byte(s), nil }}
	}
	for _, c := range []struct {
		name, in string
		options  ImportOptions
		failure  string // of the file
		skipped  string // of a line
	}{
		{"one QR code of two", migrationURL(2, 0), ImportOptions{}, "", "part 2 of 2"},
		{"damaged export", "otpauth-migration://offline?data=CgX%2F\n", ImportOptions{}, "", "line 1"},
		{"Aegis without a password", sealAegis("{}", "a"), ImportOptions{}, "is encrypted", ""},
		{"Aegis with a wrong password", sealAegis("{}", "a"), password("b"), "does not open", ""},
		{"PSKC without a key", pskcRFCKey, ImportOptions{}, `"Pre-shared-key"`, ""},
		{"PSKC with a wrong key", pskcRFCKey, ImportOptions{Key: make([]byte, 16)}, "does not open", ""},
		{"PSKC with a wrong password", pskcRFCPassword, password("asdfgh"), "does not open", ""},
		{
			"PSKC that was changed", strings.Replace(pskcRFCPassword, "oTvo", "oTvp", 1), password("qwerty"),
			"was changed", "",
		},
		{"PSKC without its MAC", regexp.MustCompile(`<pskc:ValueMAC>.*</pskc:ValueMAC>`).
			ReplaceAllString(pskcRFCPassword, ""), password("qwerty"), "", "line 19"},
		{
			"PSKC that asks for much work", strings.Replace(pskcRFCPassword, ">1000<", ">2000000000<", 1),
			password("qwerty"), "out of range", "",
		},
		{
			"Aegis that asks for much memory", strings.Replace(sealAegis("{}", "a"), `"n":1024`, `"n":1073741824`, 1),
			password("a"), "too much memory", "",
		},
		{"SQLite on standard input", "SQLite format 3\x00xxxx", ImportOptions{}, "SQLite", ""},
		{"binary", "\x01\x02\x00\x00\x00", ImportOptions{}, "not text", ""},
		{"other JSON", `{"items":[]}`, ImportOptions{}, "FreeOTP+ or Aegis", ""},
		{"a clock that is off", base1 + "\n\" TOTP_AUTH\n\" TIME_SKEW 4\n", ImportOptions{}, "", "line 3"},
		{"a period of a second", "otpauth://totp/a?period=1&secret=" + base1, ImportOptions{}, "", "line 1"},
		{"an unknown hash", "otpauth://totp/a?algorithm=MD5&secret=" + base1, ImportOptions{}, "", "line 1"},
		{
			"a counter without end", "otpauth://hotp/a?counter=9223372036854775807&secret=" + base1,
			ImportOptions{},
			"",
			"line 1",
		},
	} {
		im, err := ReadImport(strings.NewReader(c.in), c.options)
		switch {
		case c.failure != "":
			if err == nil || !strings.Contains(err.Error(), c.failure) {
				t.Errorf("%s: %v", c.name, err)
			}
		case err != nil || len(im.Skipped) != 1 || im.Skipped[0].Place != c.skipped:
			t.Errorf("%s: %+v, %v", c.name, im, err)
		}
	}
}

func TestUsedCodesStayUsed(t *testing.T) {
	now := time.Now()
	stamp := now.Format("2006-01-02T15:04:05L")
	step := now.Unix() / 30
	for _, c := range []struct {
		name, in string
		moving   int64
	}{
		{"users.oath, HOTP", "HOTP root - " + hex1 + " 2 359152 " + stamp + "\n", 2},
		{"users.oath, TOTP", "HOTP/T30 root - " + hex1 + " 0 359152 " + stamp + "\n", step + 1},
		{"Google's counter", base1 + "\n\" HOTP_COUNTER 5\n", 4},
		{"Google's used codes", base1 + "\n\" DISALLOW_REUSE 59000000 59000002 59000001\n\" TOTP_AUTH\n", 59000002},
		{"a counter in a URL", "otpauth://hotp/a?counter=7&secret=" + base1, 6},
		{
			"FreeOTP+'s last counter",
			`{"tokens":[{"algo":"SHA1","counter":7,"digits":6,"label":"a","secret":[49,50,51,52,53,54,55,56,57,48],` +
				`"type":"HOTP"}]}`, 7,
		},
	} {
		im, err := ReadImport(strings.NewReader(c.in), ImportOptions{})
		if err != nil || len(im.OATH) != 1 || im.OATH[0].Moving != c.moving {
			t.Errorf("%s: %+v, %v", c.name, im, err)
		}
	}
}

func TestAuthenticatorsGoToTheirOwners(t *testing.T) {
	in := "F1," + hex1 + ",hotp\nF2," + hex1 + ",hotp\n" +
		"otpauth://totp/Alice?secret=" + base1 + "\notpauth://totp/eve?secret=" + base1 + "\n"
	im, err := ReadImport(strings.NewReader(in), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := ParseOwners([]byte("\xef\xbb\xbf# whose is what\r\nf1, Bob # blue\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = im.Assign("", owners, func(name string) (string, error) {
		return map[string]string{"Alice": "alice"}[name], nil
	})
	if err != nil || len(im.OATH) != 2 || im.OATH[0].Person != "bob" || im.OATH[1].Person != "alice" {
		t.Errorf("%+v, %v", im.OATH, err)
	}
	if len(im.Skipped) != 2 || im.Skipped[0].Place != "line 2" || im.Skipped[1].Why != `there is no person "eve"` {
		t.Errorf("skipped %v", im.Skipped)
	}
	for _, bad := range []string{"F1\n", "F1,not a person\n", ",bob\n", "a,b,c\n"} {
		if _, err := ParseOwners([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "line 1:") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestImportKeepsNoMoreThanItMust feeds a file of nothing but bad lines.
func TestImportKeepsNoMoreThanItMust(t *testing.T) {
	im, err := ReadImport(strings.NewReader(strings.Repeat("x\n", 5000)), ImportOptions{})
	if err != nil || len(im.Skipped) != maxSkipped || im.Unlisted != 5000-maxSkipped {
		t.Errorf("%d and %d, %v", len(im.Skipped), im.Unlisted, err)
	}
}

func FuzzReadAuthenticators(f *testing.F) {
	for _, file := range oathFiles() {
		f.Add([]byte(file.in))
		f.Add([]byte(encodings(file.in)["UTF-16LE"]))
	}
	key, _ := hex.DecodeString("12345678901234567890123456789012")
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := ReadImport(bytes.NewReader(b), ImportOptions{Key: key})
		if err != nil {
			return
		}
		for _, o := range im.OATH {
			if err := o.Validate(); err != nil || o.Moving < -1 || o.Place == "" {
				t.Fatalf("imported %+v: %v", o, err)
			}
			o.Code(time.Unix(59, 0))
		}
		if len(im.Skipped) > maxSkipped {
			t.Fatal("too much is kept")
		}
	})
}

func FuzzParseOwners(f *testing.F) {
	f.Add([]byte("F1,alice\n# c\n\"a,b\",bob\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		owners, _ := ParseOwners(b)
		for name, person := range owners {
			if name == "" || !postern.ValidName(person) {
				t.Fatalf("%q: %q", name, person)
			}
		}
	})
}

func FuzzUnwrapKey(f *testing.F) {
	kek, _ := hex.DecodeString("000102030405060708090A0B0C0D0E0F") // RFC 3394, 4.1
	wrapped, _ := hex.DecodeString("1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5")
	block, err := aes.NewCipher(kek)
	if err != nil {
		f.Fatal(err)
	}
	if plain, ok := unwrapKey(block, wrapped); !ok || hex.EncodeToString(plain) != "00112233445566778899aabbccddeeff" {
		f.Fatalf("the vector of RFC 3394 is %x, %v", plain, ok)
	}
	f.Add(wrapped)
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, ok := unwrapKey(block, b); ok && !bytes.Equal(b, wrapped) && len(plain) != len(b)-8 {
			t.Fatal("a wrong length")
		}
	})
}
