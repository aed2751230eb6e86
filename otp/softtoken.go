package otp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

// Secret is the secret of a YubiKey slot, which a server needs to decrypt its codes.
type Secret struct {
	PrivateID [privateIDLength]byte
	Key       [16]byte // AES-128
}

// NewSecret returns a fresh random secret.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.PrivateID[:])
	rand.Read(s.Key[:])
	return s
}

// NewPublicID returns a random public ID of twelve letters that begins with vv, the
// prefix for IDs that Yubico does not assign.
func NewPublicID() string {
	id := [6]byte{0xff}
	rand.Read(id[1:])
	return EncodeModhex(id[:])
}

// cipher returns the AES-128 cipher of the key.
func (s Secret) cipher() cipher.Block {
	block, err := aes.NewCipher(s.Key[:])
	if err != nil {
		panic(err) // only for a wrong key length
	}
	return block
}

// String does not reveal the secret.
func (s Secret) String() string { return "(secret)" }

// GoString does not reveal the secret to %#v.
func (s Secret) GoString() string { return s.String() }

// SoftToken is a YubiKey slot in software, for tests and trials. It is plain data, so
// that it can be stored between touches, and it is not safe for concurrent use.
type SoftToken struct {
	PublicID string
	Secret   Secret
	Counter  uint16    // sessions so far; at most 0x7fff
	Use      uint8     // the next code's use in this session
	Clock    uint32    // the timestamp at power-up, 24 bits, random
	Powered  time.Time // when it was plugged in; zero: not yet
}

// ErrTokenWornOut says that the session counter has reached its maximum. A YubiKey then
// types no more codes.
var ErrTokenWornOut = errors.New("the session counter is used up")

// NewSoftToken returns a token with a new public ID and secret that was never plugged
// in.
func NewSoftToken() *SoftToken {
	return &SoftToken{PublicID: NewPublicID(), Secret: NewSecret()}
}

// PowerUp plugs the token in at time now: with the first touch that follows, a
// new session begins.
func (t *SoftToken) PowerUp(now time.Time) error {
	if t.Counter >= counterMask {
		return ErrTokenWornOut
	}
	var b [4]byte
	rand.Read(b[:])
	t.Counter++
	t.Use = 0
	t.Clock = binary.LittleEndian.Uint32(b[:]) & maxTimestamp
	t.Powered = now
	return nil
}

// Touch returns the next code at time now, plugging the token in if it never
// was. After 256 codes the session counter rises by itself.
func (t *SoftToken) Touch(now time.Time) (Code, error) {
	if t.Powered.IsZero() {
		if err := t.PowerUp(now); err != nil {
			return Code{}, err
		}
	}
	if t.Counter > counterMask {
		return Code{}, ErrTokenWornOut
	}
	var noise [2]byte
	rand.Read(noise[:])
	ticks := int64(now.Sub(t.Powered) / (time.Second / TicksPerSecond))
	code := Token{
		PrivateID: t.Secret.PrivateID,
		Counter:   t.Counter,
		Timestamp: uint32((int64(t.Clock) + ticks) & maxTimestamp),
		Use:       t.Use,
		Random:    binary.LittleEndian.Uint16(noise[:]),
	}.Seal(t.Secret.cipher(), t.PublicID)
	if t.Use++; t.Use == 0 {
		t.Counter++
	}
	return code, nil
}
