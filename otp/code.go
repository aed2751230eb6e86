package otp

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// The shape of a code, and of the block in it.
const (
	blockLetters    = 32 // modhex letters of the encrypted block
	maxPublicID     = 16 // modhex letters of a public ID
	maxCode         = maxPublicID + blockLetters
	maxCodeBytes    = maxCode * utf8.UTFMax
	counterMask     = 0x7fff    // the session counter has 15 bits
	maxTimestamp    = 1<<24 - 1 // the clock has 24 bits and ticks
	TicksPerSecond  = 8         // this often
	crcResidue      = 0xf0b8    // CRC of a block that carries its own CRC
	crcPolynomial   = 0x8408    // CRC-16 of ISO 13239, reflected
	privateIDLength = 6         // bytes
)

// Code is one OTP as a YubiKey types it: a public ID in the clear and one
// encrypted block.
type Code struct {
	PublicID string // 0 to 16 small modhex letters
	Block    [16]byte
}

// ParseCode reads an OTP: white space around it and capitals do not matter.
// What users of other keyboard layouts type is read by [Readings].
func ParseCode(s string) (Code, bool) {
	return parseModhex(strings.TrimSpace(s))
}

func parseModhex(s string) (c Code, ok bool) {
	if len(s) < blockLetters || len(s) > maxCode {
		return Code{}, false
	}
	cut := len(s) - blockLetters
	if !decodeModhex(c.Block[:], s[cut:]) {
		return Code{}, false
	}
	c.PublicID = strings.ToLower(s[:cut])
	return c, isModhex(c.PublicID)
}

// Modhex returns the whole code in small letters. It is secret until it was accepted,
// so it must not be in a log or an error.
func (c Code) Modhex() string { return c.PublicID + EncodeModhex(c.Block[:]) }

// String returns the public ID only, so that a code that is printed by mistake is not
// revealed.
func (c Code) String() string { return c.PublicID + "…" }

// Token is the content of a YubiKey's encrypted block.
type Token struct {
	PrivateID [privateIDLength]byte
	Counter   uint16 // sessions (power-ups with a touch) so far, 15 bits
	CapsLock  bool   // old firmware: caps lock was on
	Timestamp uint32 // 24 bits, eighths of a second since a random start at power-up
	Use       uint8  // codes in this session so far
	Random    uint16
}

// Seq returns the session counter and the use as one number. It is higher for a later
// code of the same key.
func (t Token) Seq() int64 { return int64(t.Counter)<<8 | int64(t.Use) }

// Open decrypts the block with a key's AES-128 cipher. It returns false unless checksum
// and private ID are right. Neither the result nor the time reveals which was wrong.
func (c Code) Open(aes cipher.Block, privateID [privateIDLength]byte) (Token, bool) {
	var b [16]byte
	aes.Decrypt(b[:], c.Block[:])
	crc := crc16(b[:])
	ok := subtle.ConstantTimeCompare(b[:privateIDLength], privateID[:]) &
		subtle.ConstantTimeEq(int32(crc), crcResidue)
	if ok != 1 {
		return Token{}, false
	}
	return parseToken(b), true
}

func parseToken(b [16]byte) Token {
	le := binary.LittleEndian
	return Token{
		PrivateID: [privateIDLength]byte(b[:privateIDLength]),
		Counter:   le.Uint16(b[6:]) & counterMask,
		CapsLock:  le.Uint16(b[6:])&^counterMask != 0,
		Timestamp: uint32(le.Uint16(b[8:])) | uint32(b[10])<<16,
		Use:       b[11],
		Random:    le.Uint16(b[12:]),
	}
}

// Seal encrypts the token into the code of a key.
func (t Token) Seal(aes cipher.Block, publicID string) Code {
	c := Code{PublicID: publicID}
	b := t.plain()
	aes.Encrypt(c.Block[:], b[:])
	return c
}

// plain returns the token's bytes. The last two are the checksum: the complement of the
// CRC of the rest, so that the CRC of all is the residue.
func (t Token) plain() (b [16]byte) {
	le := binary.LittleEndian
	word := t.Counter & counterMask
	if t.CapsLock {
		word |= counterMask + 1
	}
	copy(b[:], t.PrivateID[:])
	le.PutUint16(b[6:], word)
	le.PutUint16(b[8:], uint16(t.Timestamp))
	b[10] = byte(t.Timestamp >> 16)
	b[11] = t.Use
	le.PutUint16(b[12:], t.Random)
	le.PutUint16(b[14:], ^crc16(b[:14]))
	return b
}

func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			// No branch depends on the data, which is secret.
			crc = crc>>1 ^ crcPolynomial&-(crc&1)
		}
	}
	return crc
}
