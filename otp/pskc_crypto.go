package otp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // RFC 6030 allows it
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // RFC 6030's
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strings"

	"github.com/postern-project/postern"
)

const maxIterations = 10_000_000 // of PBKDF2

// pskcValue is a value of RFC 6030, section 4.2: plain, or encrypted with a MAC
// over the ciphertext.
type pskcValue struct {
	Plain     *string       `xml:"PlainValue"`
	Encrypted pskcEncrypted `xml:"EncryptedValue"`
	MAC       string        `xml:"ValueMAC"`
}

type pskcEncrypted struct {
	Method struct {
		Algorithm string `xml:"Algorithm,attr"`
	} `xml:"EncryptionMethod"`
	Value string `xml:"CipherData>CipherValue"`
}

// pskcKeys opens the encrypted values of a file (RFC 6030, section 6).
type pskcKeys struct {
	im         *Import
	encryption struct {
		Names   []string `xml:"KeyName"`
		Derived *struct {
			Method struct {
				Algorithm string `xml:"Algorithm,attr"`
				Params    struct {
					Salt       string `xml:"Salt>Specified"`
					Iterations int    `xml:"IterationCount"`
					Length     int    `xml:"KeyLength"`
					PRF        struct {
						Algorithm string `xml:"Algorithm,attr"`
					} `xml:"PRF"`
				} `xml:"PBKDF2-params"`
			} `xml:"KeyDerivationMethod"`
		} `xml:"DerivedKey"`
	}
	mac struct {
		Algorithm string         `xml:"Algorithm,attr"`
		Key       *pskcEncrypted `xml:"MACKey"`
	}
	key    []byte // opens the values
	macKey []byte
}

// value returns a value's bytes, or why there are none. It fails where nothing
// of the file can be opened.
func (k *pskcKeys) value(v pskcValue) (b []byte, why string, err error) {
	if v.Plain != nil {
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(*v.Plain), ""))
		if err != nil {
			return nil, "the secret cannot be decoded", nil
		}
		return b, "", nil
	}
	if v.Encrypted.Value == "" {
		return nil, "a key without its secret", nil
	}
	return k.open(v)
}

// number returns a counter, an interval or a drift as text, "" for none.
func (k *pskcKeys) number(v pskcValue) (n, why string, err error) {
	ok := true
	switch {
	case v.Plain != nil:
		n, ok = pskcNumber(*v.Plain)
	case v.Encrypted.Value != "":
		var b []byte
		if b, why, err = k.open(v); err == nil && why == "" {
			n, ok = numberOf(b)
		}
	}
	if !ok {
		return "", "a counter or period that is not a number", nil
	}
	return n, why, err
}

// open decrypts a value after its MAC was checked.
func (k *pskcKeys) open(v pskcValue) (b []byte, why string, err error) {
	if err := k.prepare(); err != nil {
		return nil, "", err
	}
	sealed, ok := base64Of(v.Encrypted.Value)
	if !ok {
		return nil, "an encrypted value that cannot be decoded", nil
	}
	algorithm := pskcAlgorithm(v.Encrypted.Method.Algorithm)
	if strings.HasSuffix(algorithm, "-cbc") {
		want, ok := base64Of(v.MAC)
		mac := k.sum(sealed)
		if mac == nil || !ok || len(want) == 0 {
			return nil, "an encrypted value without a MAC, which RFC 6030 requires", nil
		}
		if subtle.ConstantTimeCompare(mac, want) != 1 {
			return nil, "",
				postern.Errorf(postern.Denied, "the password or key does not open the file, or the file was changed")
		}
	}
	if b, ok = decryptXML(algorithm, k.key, sealed); !ok {
		return nil, "a value that is encrypted in a way that is not known, or damaged", nil
	}
	return b, "", nil
}

func base64Of(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	return b, err == nil
}

// prepare finds the keys: it derives one from the password, or takes the one
// that was given.
func (k *pskcKeys) prepare() error {
	if k.key != nil {
		return nil
	}
	key := k.im.options.Key
	switch {
	case k.encryption.Derived != nil:
		var err error
		if key, err = k.derive(); err != nil {
			return err
		}
	case len(key) == 0:
		e := postern.Errorf(postern.Invalid, "the file is encrypted with a key")
		if len(k.encryption.Names) > 0 {
			e = postern.Errorf(postern.Invalid, "the file is encrypted with the key %q",
				clip(k.encryption.Names[0], 100))
		}
		return e.WithHint("give the key that its writer agreed on with you")
	}
	k.macKey = key // where a file has no MAC key of its own, as drafts had it
	if k.mac.Key != nil && k.mac.Key.Value != "" {
		sealed, ok := base64Of(k.mac.Key.Value)
		if ok {
			k.macKey, ok = decryptXML(pskcAlgorithm(k.mac.Key.Method.Algorithm), key, sealed)
		}
		if !ok {
			return postern.Errorf(postern.Denied,
				"the password or key does not open the file, or the file was changed")
		}
	}
	k.key = key
	return nil
}

var pskcHashes = map[string]func() hash.Hash{
	"": sha1.New, "hmac-sha1": sha1.New, "hmac-sha256": sha256.New, "hmac-sha384": sha512.New384,
	"hmac-sha512": sha512.New,
}

// derive derives the key from the password by PBKDF2 (RFC 6030, section 6.2).
func (k *pskcKeys) derive() ([]byte, error) {
	m := k.encryption.Derived.Method
	prf := pskcHashes[pskcAlgorithm(m.Params.PRF.Algorithm)]
	salt, ok := base64Of(m.Params.Salt)
	length := m.Params.Length
	switch {
	case pskcAlgorithm(m.Algorithm) != "pbkdf2" || prf == nil || !ok || len(salt) == 0:
		return nil, postern.Errorf(postern.Invalid, "the file is encrypted with a password in a way that is not known")
	case m.Params.Iterations < 1 || m.Params.Iterations > maxIterations || length < 16 || length > 64:
		return nil, postern.Errorf(postern.Invalid, "the parameters of PBKDF2 are out of range")
	}
	password, err := k.im.password("the file")
	if err != nil {
		return nil, err
	}
	key, err := pbkdf2.Key(prf, string(password), salt, m.Params.Iterations, length)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "the parameters of PBKDF2 are out of range")
	}
	return key, nil
}

// sum returns the MAC of a ciphertext with its initialization vector, nil
// without a method that is known.
func (k *pskcKeys) sum(sealed []byte) []byte {
	h := pskcHashes[pskcAlgorithm(k.mac.Algorithm)]
	if h == nil || k.mac.Algorithm == "" {
		return nil
	}
	m := hmac.New(h, k.macKey)
	m.Write(sealed)
	return m.Sum(nil)
}

// xmlCiphers are the ciphers of XML Encryption, by key length in bytes.
var xmlCiphers = map[string]struct {
	size int
	new  func([]byte) (cipher.Block, error)
}{
	"aes128-cbc": {16, aes.NewCipher}, "aes192-cbc": {24, aes.NewCipher}, "aes256-cbc": {32, aes.NewCipher},
	"kw-aes128": {16, aes.NewCipher}, "kw-aes192": {24, aes.NewCipher}, "kw-aes256": {32, aes.NewCipher},
	"tripledes-cbc": {24, des.NewTripleDESCipher},
}

// decryptXML decrypts as XML Encryption has it, section 5.
func decryptXML(algorithm string, key, sealed []byte) ([]byte, bool) {
	c, ok := xmlCiphers[algorithm]
	if !ok || len(key) != c.size {
		return nil, false
	}
	block, err := c.new(key)
	if err != nil {
		return nil, false
	}
	if strings.HasPrefix(algorithm, "kw-") {
		return unwrapKey(block, sealed)
	}
	size := block.BlockSize()
	if len(sealed) < 2*size || len(sealed)%size != 0 {
		return nil, false
	}
	plain := make([]byte, len(sealed)-size)
	cipher.NewCBCDecrypter(block, sealed[:size]).CryptBlocks(plain, sealed[size:])
	padding := int(plain[len(plain)-1])
	if padding < 1 || padding > size {
		return nil, false
	}
	return plain[:len(plain)-padding], true
}

// unwrapKey opens a key wrapped by RFC 3394, section 2.2.2.
func unwrapKey(block cipher.Block, sealed []byte) ([]byte, bool) {
	n := len(sealed)/8 - 1
	if n < 2 || len(sealed)%8 != 0 || len(sealed) > 4096 {
		return nil, false
	}
	a, r := bytes.Clone(sealed[:8]), bytes.Clone(sealed[8:])
	var b [16]byte
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			t := uint64(n*j + i)
			copy(b[:8], a)
			for k := range 8 {
				b[7-k] ^= byte(t >> (8 * k))
			}
			copy(b[8:], r[8*(i-1):8*i])
			block.Decrypt(b[:], b[:])
			copy(a, b[:8])
			copy(r[8*(i-1):8*i], b[8:])
		}
	}
	return r, subtle.ConstantTimeCompare(a, bytes.Repeat([]byte{0xa6}, 8)) == 1
}
