package otp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"

	"golang.org/x/crypto/scrypt"
	"google.golang.org/protobuf/encoding/protowire"
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
