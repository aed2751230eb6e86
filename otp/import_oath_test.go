package otp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/scrypt"
	"google.golang.org/protobuf/encoding/protowire"
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

// oathFile is a file with authenticators, as one row of docs/import.md has it.
type oathFile struct {
	row, in string
	options ImportOptions
	want    []made
	skipped []string
}

func oathFiles() []oathFile {
	password := ImportOptions{Password: func() ([]byte, error) { return []byte("qwerty"), nil }}
	key, _ := hex.DecodeString("12345678901234567890123456789012")
	vault := `{"version":2,"entries":[` +
		`{"type":"totp","name":"alice","issuer":"Example","info":{"secret":"` + base1 +
		`","algo":"SHA1","digits":8,"period":30}},` +
		`{"type":"steam","name":"eve","issuer":"","info":{"secret":"` + base1 +
		`","algo":"SHA1","digits":5,"period":30}},` +
		`{"type":"hotp","name":"dave","issuer":"","info":{"secret":"` + base1 +
		`","algo":"SHA1","digits":6,"counter":0}}]}`
	return []oathFile{
		{
			"otpauth: URLs", "otpauth://totp/Example:alice?secret=" + base1 + "&digits=8&issuer=Example\n" +
				"otpauth://totp/bob?secret=" + strings.ToLower(base256) + "&algorithm=SHA256&digits=8&period=30\r\n" +
				"otpauth://totp/Example%3Acarol?algorithm=HMAC-SHA-512&digits=8&secret=" + base512 + "\n" +
				"otpauth://hotp/dave?secret=" + base1 + "&counter=0\n" +
				"otpauth://totp/eve?secret=1189\n",
			ImportOptions{},
			[]made{sha1Code, sha256Code, sha512Code, firstHOTP},
			[]string{"line 5"},
		},
		{"Google Authenticator, exported", migrationURL(1, 0), ImportOptions{}, []made{sha1Code, firstHOTP}, nil},
		{
			"`.google_authenticator`", base1 +
				"\n\" RATE_LIMIT 3 30\n\" WINDOW_SIZE 17\n\" DISALLOW_REUSE\n\" TOTP_AUTH\n12345678\n23456789\n",
			ImportOptions{},
			[]made{{"", "totp", "287082"}},
			[]string{"line 6"},
		},
		{
			"`users.oath`", "# a comment\nHOTP/T30/8\talice\t-\t" + hex1 + "\nHOTP dave - " + hex1 +
				"\nHOTP/E/6 dave + " + hex1 + " 0\n" +
				"HOTP eve 1234 " + hex1 + "\nMOTP eve - " + hex1 + "\n",
			ImportOptions{},
			[]made{sha1Code, firstHOTP, firstHOTP},
			[]string{"line 5", "line 6"},
		},
		{
			"LinOTP, CSV", "F1," + hex1 + ",totp,8,30,sha1\nF2," + hex.EncodeToString([]byte(seed256)) +
				",totp,8,30\n" +
				"F3," + hex.EncodeToString([]byte(seed512)) + ",TOTP,8,,\nF4," + hex1 + "\nF5," + hex1 +
				",ocra2,OCRA-1:HOTP-SHA256-8:C-QN08\n",
			ImportOptions{},
			[]made{
				{"", "totp", sha1Code.code},
				{"", "totp", sha256Code.code},
				{"", "totp", sha512Code.code},
				{"", "hotp", "755224"},
			},
			[]string{"line 5"},
		},
		{
			"privacyIDEA, CSV", "# version: 2\nalice, res, realm, F1, " + hex1 +
				", totp, 8, 30\ndave, res, realm, F2, " + hex1 + ", hotp, 6, 0\n",
			ImportOptions{},
			[]made{sha1Code, firstHOTP},
			nil,
		},
		{"CSV with a header line", "\"Username\";\"Secret\";\"Type\";\"Digits\";\"Algorithm\"\r\n\"alice\";\"" +
			base1 + "\";\"TOTP\";\"8\";\"SHA1\"\r\n" +
			"dave;" + hex1 + ";HOTP;6;\r\n", ImportOptions{}, []made{sha1Code, firstHOTP}, nil},
		{
			"FreeOTP+",
			`{"tokenOrder":["Example:alice"],"tokens":[{"algo":"SHA1","counter":0,"digits":8,"issuerExt":"Example",` +
				`"issuerInt":"Example","label":"alice","period":30,"secret":` +
				`[49,50,51,52,53,54,55,56,57,48,49,50,51,52,53,54,55,56,57,48],"type":"TOTP"},` +
				`{"algo":"MD5","digits":6,"label":"eve","period":30,"secret":[-1,2],"type":"TOTP"}]}`,
			ImportOptions{},
			[]made{sha1Code},
			[]string{"entry 2"},
		},
		{
			"Aegis, plain", `{"version":1,"header":{"slots":null,"params":null},"db":` + vault + `}`,
			ImportOptions{},
			[]made{sha1Code, firstHOTP},
			[]string{"entry 2"},
		},
		{
			"Aegis, with a password", sealAegis(vault, "qwerty"), password,
			[]made{sha1Code, firstHOTP},
			[]string{"entry 2"},
		},
		{"PSKC", pskcPlain, ImportOptions{}, []made{sha1Code, firstHOTP}, []string{"line 17"}},
		{"PSKC, with a key", pskcRFCKey, ImportOptions{Key: key}, []made{{"", "hotp", "755224"}}, nil},
		{"PSKC, with a password", pskcRFCPassword, password, []made{{"", "hotp", "755224"}}, nil},
		{
			"yubiserver, dump or database",
			"CREATE TABLE oathtokens(nickname, publicname, created, secret, active, counter);\n" +
				"INSERT INTO oathtokens VALUES('dave','cccc00000001','2026-11-24','" + hex1 + "',1,0);\n",
			ImportOptions{},
			[]made{{"dave", "hotp", "287082"}},
			nil,
		},
	}
}

// pskcPlain is as RFC 6030, figures 2 and 5, with prefixes; the last key has a
// PIN policy.
const pskcPlain = `<?xml version="1.0" encoding="UTF-8"?>
<pskc:KeyContainer Version="1.0" xmlns:pskc="urn:ietf:params:xml:ns:keyprov:pskc">
<pskc:KeyPackage>
 <pskc:DeviceInfo><pskc:Manufacturer>Manufacturer</pskc:Manufacturer>
  <pskc:SerialNo>987654321</pskc:SerialNo></pskc:DeviceInfo>
 <pskc:Key Id="1" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:totp">
  <pskc:AlgorithmParameters><pskc:ResponseFormat Length="8" Encoding="DECIMAL"/></pskc:AlgorithmParameters>
  <pskc:Data><pskc:Secret><pskc:PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=</pskc:PlainValue></pskc:Secret>
  <pskc:TimeInterval><pskc:PlainValue>30</pskc:PlainValue></pskc:TimeInterval></pskc:Data>
  <pskc:UserId>CN=alice, DC=example, DC=net</pskc:UserId></pskc:Key>
</pskc:KeyPackage>
<pskc:KeyPackage><pskc:DeviceInfo><pskc:UserId>dave</pskc:UserId></pskc:DeviceInfo>
 <pskc:Key Id="2" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp">
  <pskc:AlgorithmParameters><pskc:ResponseFormat Length="6" Encoding="DECIMAL"/></pskc:AlgorithmParameters>
  <pskc:Data><pskc:Secret><pskc:PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=</pskc:PlainValue></pskc:Secret>
  <pskc:Counter><pskc:PlainValue>0</pskc:PlainValue></pskc:Counter></pskc:Data></pskc:Key></pskc:KeyPackage>
<pskc:KeyPackage><pskc:Key Id="3" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp">
  <pskc:Data><pskc:Secret><pskc:PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=</pskc:PlainValue></pskc:Secret></pskc:Data>
  <pskc:Policy><pskc:PINPolicy PINKeyId="4" PINUsageMode="Append"/></pskc:Policy></pskc:Key></pskc:KeyPackage>
</pskc:KeyContainer>
`

// pskcRFCKey is the example of RFC 6030, figure 6: AES-128-CBC with the key
// 12345678901234567890123456789012.
const pskcRFCKey = `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"
 xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
 <EncryptionKey><ds:KeyName>Pre-shared-key</ds:KeyName></EncryptionKey>
 <MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1">
  <MACKey><xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
   <xenc:CipherData>
    <xenc:CipherValue>ESIzRFVmd4iZABEiM0RVZgKn6WjLaTC1sbeBMSvIhRejN9vJa2BOlSaMrR7I5wSX</xenc:CipherValue>
   </xenc:CipherData></MACKey>
 </MACMethod>
 <KeyPackage><DeviceInfo><Manufacturer>Manufacturer</Manufacturer><SerialNo>987654321</SerialNo></DeviceInfo>
  <CryptoModuleInfo><Id>CM_ID_001</Id></CryptoModuleInfo>
  <Key Id="12345678" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp"><Issuer>Issuer</Issuer>
   <AlgorithmParameters><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters>
   <Data><Secret><EncryptedValue><xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
     <xenc:CipherData>
      <xenc:CipherValue>AAECAwQFBgcICQoLDA0OD+cIHItlB3Wra1DUpxVvOx2lef1VmNPCMl8jwZqIUqGv</xenc:CipherValue>
     </xenc:CipherData></EncryptedValue>
     <ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=</ValueMAC></Secret>
    <Counter><PlainValue>0</PlainValue></Counter></Data></Key></KeyPackage>
</KeyContainer>
`

// pskcRFCPassword is the example of RFC 6030, figure 7: PBKDF2 of qwerty.
const pskcRFCPassword = `<?xml version="1.0" encoding="UTF-8"?>
<pskc:KeyContainer xmlns:pskc="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:xenc11="http://www.w3.org/2009/xmlenc11#"
 xmlns:pkcs5="http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#"
 xmlns:xenc="http://www.w3.org/2001/04/xmlenc#" Version="1.0">
 <pskc:EncryptionKey><xenc11:DerivedKey>
  <xenc11:KeyDerivationMethod Algorithm="http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#pbkdf2">
   <pkcs5:PBKDF2-params><Salt><Specified>Ej7/PEpyEpw=</Specified></Salt>
    <IterationCount>1000</IterationCount><KeyLength>16</KeyLength><PRF/></pkcs5:PBKDF2-params>
  </xenc11:KeyDerivationMethod>
  <xenc:ReferenceList><xenc:DataReference URI="#ED"/></xenc:ReferenceList>
  <xenc11:MasterKeyName>My Password 1</xenc11:MasterKeyName>
 </xenc11:DerivedKey></pskc:EncryptionKey>
 <pskc:MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1">
  <pskc:MACKey><xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
   <xenc:CipherData>
    <xenc:CipherValue>2GTTnLwM3I4e5IO5FkufoOEiOhNj91fhKRQBtBJYluUDsPOLTfUvoU2dStyOwYZx</xenc:CipherValue>
   </xenc:CipherData></pskc:MACKey>
 </pskc:MACMethod>
 <pskc:KeyPackage><pskc:DeviceInfo><pskc:Manufacturer>TokenVendorAcme</pskc:Manufacturer>
  <pskc:SerialNo>987654321</pskc:SerialNo></pskc:DeviceInfo>
  <pskc:CryptoModuleInfo><pskc:Id>CM_ID_001</pskc:Id></pskc:CryptoModuleInfo>
  <pskc:Key Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp" Id="123456"><pskc:Issuer>Example-Issuer</pskc:Issuer>
   <pskc:AlgorithmParameters><pskc:ResponseFormat Length="8" Encoding="DECIMAL"/></pskc:AlgorithmParameters>
   <pskc:Data><pskc:Secret><pskc:EncryptedValue Id="ED">
     <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
     <xenc:CipherData>
      <xenc:CipherValue>oTvo+S22nsmS2Z/RtcoF8Hfh+jzMe0RkiafpoDpnoZTjPYZu6V+A4aEn032yCr4f</xenc:CipherValue>
     </xenc:CipherData></pskc:EncryptedValue>
     <pskc:ValueMAC>LP6xMvjtypbfT9PdkJhBZ+D6O4w=</pskc:ValueMAC></pskc:Secret></pskc:Data></pskc:Key></pskc:KeyPackage>
</pskc:KeyContainer>
`

// migrationURL makes one part of what Google Authenticator exports.
func migrationURL(size, index uint64) string {
	field := func(b []byte, n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	bytesField := func(b []byte, n protowire.Number, v string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	app := func(name, issuer string, digits, kind uint64) string {
		b := bytesField(bytesField(bytesField(nil, 1, seed1), 2, name), 3, issuer)
		return string(field(field(field(field(b, 4, 1), 5, digits), 6, kind), 7, 0))
	}
	b := bytesField(bytesField(nil, 1, app("Example:alice", "Example", 2, 2)), 1, app("dave", "", 1, 1))
	b = field(field(field(field(b, 2, 1), 3, size), 4, index), 5, 4711)
	return "otpauth-migration://offline?data=" + url.QueryEscape(base64.StdEncoding.EncodeToString(b)) + "\n"
}

// sealAegis encrypts a vault as Aegis does, by its docs/vault.md.
func sealAegis(vault, password string) string {
	seal := func(key, nonce, plain []byte) (sealed []byte, seal map[string]string) {
		block, _ := aes.NewCipher(key)
		aead, _ := cipher.NewGCM(block)
		out := aead.Seal(nil, nonce, plain, nil)
		at := len(out) - 16
		return out[:at], map[string]string{"nonce": hex.EncodeToString(nonce), "tag": hex.EncodeToString(out[at:])}
	}
	salt, nonce, master := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 12), bytes.Repeat([]byte{3}, 32)
	derived, _ := scrypt.Key([]byte(password), salt, 1<<10, 8, 1, 32)
	slotKey, slotSeal := seal(derived, nonce, master)
	db, params := seal(master, nonce, []byte(vault))
	b, _ := json.Marshal(map[string]any{"version": 1, "header": map[string]any{
		"slots": []any{
			map[string]any{"type": 2, "key": "00", "key_params": slotSeal}, // biometric
			map[string]any{
				"type": 1, "uuid": "x", "key": hex.EncodeToString(slotKey), "key_params": slotSeal,
				"n": 1 << 10, "r": 8, "p": 1, "salt": hex.EncodeToString(salt), "repaired": true,
			},
		}, "params": params,
	}, "db": base64.StdEncoding.EncodeToString(db)})
	return string(b)
}

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
