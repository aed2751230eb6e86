package otp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/scrypt"
)

// number is a JSON number, or a string with a number.
type number = json.Number

// readJSON reads the backups of FreeOTP+ and Aegis.
func (im *Import) readJSON(b []byte) error {
	var file struct {
		Tokens []json.RawMessage `json:"tokens"`
		Header aegisHeader       `json:"header"`
		DB     json.RawMessage   `json:"db"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return postern.Errorf(postern.Invalid, "the file is not JSON of FreeOTP+ or Aegis")
	}
	im.unit = "entry"
	switch {
	case file.Tokens != nil:
		for i, t := range file.Tokens {
			im.addFreeOTP(i+1, t)
		}
		return nil
	case file.DB != nil:
		return im.readAegis(file.Header, file.DB)
	}
	return postern.Errorf(postern.Invalid, "the file is not JSON of FreeOTP+ or Aegis")
}

// freeOTPToken is an entry of FreeOTP+'s backup.
type freeOTPToken struct {
	Algo    string `json:"algo"`
	Counter number `json:"counter"` // that it has shown last
	Digits  number `json:"digits"`
	Issuer  string `json:"issuerExt"`
	Label   string `json:"label"`
	Period  number `json:"period"`
	Secret  []int  `json:"secret"` // bytes, as Java has them
	Type    string `json:"type"`
}

func (im *Import) addFreeOTP(n int, raw []byte) {
	var t freeOTPToken
	if json.Unmarshal(raw, &t) != nil {
		im.skip(n, "it cannot be read")
		return
	}
	secret := make([]byte, len(t.Secret))
	for i, b := range t.Secret {
		secret[i] = byte(b)
	}
	im.addOATH(n, oathFields{
		kind: t.Type, secret: secret, account: t.Label, label: t.Issuer, hash: t.Algo,
		digits: string(t.Digits), period: string(t.Period), counter: string(t.Counter), used: true,
	})
}

// aegisHeader says how an Aegis vault is encrypted: with a master key, of which each
// slot has a copy that is encrypted in its own way.
//
// See https://github.com/beemdevelopment/Aegis/blob/master/docs/vault.md
type aegisHeader struct {
	Slots []struct {
		Type    int       `json:"type"` // 1: with a password
		Key     hexBytes  `json:"key"`
		Params  aegisSeal `json:"key_params"`
		N, R, P int
		Salt    hexBytes `json:"salt"`
	} `json:"slots"`
	Params aegisSeal `json:"params"`
}

type aegisSeal struct {
	Nonce hexBytes `json:"nonce"`
	Tag   hexBytes `json:"tag"`
}

type hexBytes []byte

// UnmarshalText decodes hexadecimal digits.
func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

const (
	aegisPassword = 1
	maxSlots      = 16
	maxScryptN    = 1 << 18 // 256 MiB with r = 8; Aegis has 1 << 15
)

func (im *Import) readAegis(h aegisHeader, db json.RawMessage) error {
	if len(h.Slots) > 0 {
		var err error
		if db, err = im.openAegis(h, db); err != nil {
			return err
		}
	}
	var vault struct {
		Entries []json.RawMessage `json:"entries"`
	}
	if err := json.Unmarshal(db, &vault); err != nil {
		return postern.Errorf(postern.Invalid, "the Aegis vault cannot be read")
	}
	for i, raw := range vault.Entries {
		im.addAegis(i+1, raw)
	}
	return nil
}

// aegisEntry is an entry of an Aegis vault.
type aegisEntry struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Issuer string `json:"issuer"`
	Info   struct {
		Secret  string `json:"secret"`
		Algo    string `json:"algo"`
		Digits  number `json:"digits"`
		Period  number `json:"period"`
		Counter number `json:"counter"` // of the next code
	} `json:"info"`
}

func (im *Import) addAegis(n int, raw []byte) {
	var e aegisEntry
	if json.Unmarshal(raw, &e) != nil {
		im.skip(n, "it cannot be read")
		return
	}
	im.addOATH(n, oathFields{
		kind: e.Type, secret: decodeBase32(e.Info.Secret), account: e.Name, label: e.Issuer, hash: e.Info.Algo,
		digits: string(e.Info.Digits), period: string(e.Info.Period), counter: string(e.Info.Counter),
	})
}

// openAegis decrypts a vault with the password.
func (im *Import) openAegis(h aegisHeader, db json.RawMessage) ([]byte, error) {
	var text string
	if err := json.Unmarshal(db, &text); err != nil {
		return nil, postern.Errorf(postern.Invalid, "the Aegis vault cannot be read")
	}
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(h.Slots) > maxSlots {
		return nil, postern.Errorf(postern.Invalid, "the Aegis vault cannot be read")
	}
	password, err := im.password("the Aegis vault")
	if err != nil {
		return nil, err
	}
	for i, s := range h.Slots {
		if s.Type != aegisPassword {
			continue
		}
		if s.N < 2 || s.N > maxScryptN || s.R < 1 || s.R > 8 || s.P < 1 || s.P > 4 {
			return nil, postern.Errorf(postern.Invalid, "slot %s of the Aegis vault asks for too much memory",
				strconv.Itoa(i+1))
		}
		derived, err := scrypt.Key(password, s.Salt, s.N, s.R, s.P, 32)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "the Aegis vault cannot be read")
		}
		if master, ok := s.Params.open(derived, s.Key); ok {
			if plain, ok := h.Params.open(master, sealed); ok {
				return plain, nil
			}
			return nil, postern.Errorf(postern.Invalid, "the Aegis vault is damaged")
		}
	}
	return nil, postern.Errorf(postern.Denied, "the password does not open the Aegis vault")
}

// open decrypts data that was encrypted with AES-256-GCM.
func (s aegisSeal) open(key, sealed []byte) ([]byte, bool) {
	block, err := aes.NewCipher(key)
	if err != nil || len(s.Nonce) != 12 || len(s.Tag) != 16 {
		return nil, false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, s.Nonce, append(bytes.Clone(sealed), s.Tag...), nil)
	return plain, err == nil
}

// password asks for the password of an encrypted file, once.
func (im *Import) password(what string) ([]byte, error) {
	if im.options.Password == nil {
		return nil, postern.Errorf(postern.Invalid, "%s is encrypted", what).WithHint("give its password")
	}
	return im.options.Password()
}
