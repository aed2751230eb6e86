package otp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // RFC 4226's
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// TOTPSkew is by how many steps an authenticator's clock may differ, either way (RFC
// 6238, 5.2).
const TOTPSkew = 1

// hotpAhead is how many codes may have been made and not used (RFC 4226, 7.4).
const hotpAhead = 10

// OATH is an authenticator: an app or a hardware key that makes short codes from a
// shared secret, by time (TOTP, RFC 6238) or by a counter (HOTP, RFC 4226).
type OATH struct {
	Kind    postern.CredentialKind // TOTP or HOTP
	ID      string                 // random
	Person  string
	Label   string
	Secret  []byte        // 10 to 64 bytes
	Hash    string        // SHA1, SHA256 or SHA512
	Digits  int           // 6 to 8
	Period  time.Duration // of a TOTP step, whole seconds
	Moving  int64         // last accepted time step or counter; -1: none yet
	Status  postern.CredentialStatus
	Created time.Time
	Used    time.Time
}

// NewOATH returns a new TOTP or HOTP secret with the parameters that all apps support:
// SHA-1, six digits, thirty seconds.
func NewOATH(kind postern.CredentialKind, person, label string) *OATH {
	o := &OATH{
		Kind: kind, ID: randomID(), Person: person, Label: label,
		Secret: make([]byte, 20), Hash: "SHA1", Digits: 6, Moving: -1,
		Status: postern.CredentialActive,
	}
	if kind == postern.TOTP {
		o.Period = 30 * time.Second
	}
	rand.Read(o.Secret)
	return o
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var oathHashes = map[string]func() hash.Hash{"SHA1": sha1.New, "SHA256": sha256.New, "SHA512": sha512.New}

// Validate reports what is wrong with the parameters.
func (o *OATH) Validate() error {
	switch {
	case o.Kind != postern.TOTP && o.Kind != postern.HOTP:
		return postern.Errorf(postern.Invalid, "%q is neither TOTP nor HOTP", o.Kind)
	case len(o.Secret) < 10 || len(o.Secret) > 64:
		return postern.Errorf(postern.Invalid, "the secret has %d bytes, not 10 to 64", len(o.Secret))
	case oathHashes[o.Hash] == nil:
		return postern.Errorf(postern.Invalid, "the hash is none of SHA1, SHA256 and SHA512")
	case o.Digits < 6 || o.Digits > 8:
		return postern.Errorf(postern.Invalid, "a code has 6 to 8 digits, not %d", o.Digits)
	case o.Kind == postern.TOTP && (o.Period < 15*time.Second || o.Period > 5*time.Minute ||
		o.Period%time.Second != 0):
		return postern.Errorf(postern.Invalid, "the period is not 15 to 300 whole seconds")
	case len(o.Label) > 64:
		return postern.Errorf(postern.Invalid, "the name has more than 64 bytes")
	}
	return nil
}

// TakeSecret takes over a secret that is written in base32 or hexadecimal.
func (o *OATH) TakeSecret(text string) error {
	if o.Secret = DecodeSecret(text); o.Secret == nil {
		return postern.Errorf(postern.Invalid, "the secret is neither base32 nor hexadecimal")
	}
	return nil
}

// code returns the code for a value of the moving factor (RFC 4226, 5.3).
func (o *OATH) code(moving int64) string {
	mac := hmac.New(oathHashes[o.Hash], o.Secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(moving)))
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:]) & 0x7fffffff
	mod := uint32(1)
	for range o.Digits {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", o.Digits, n%mod)
}

// Code returns the code at a time, or the next one of HOTP.
func (o *OATH) Code(now time.Time) string {
	if o.Kind == postern.HOTP {
		return o.code(o.Moving + 1)
	}
	return o.code(o.step(now))
}

func (o *OATH) step(now time.Time) int64 { return now.Unix() / int64(o.Period/time.Second) }

// Match returns the value of the moving factor of a typed code, if it is within the
// accepted window. The code is new only if that value is above Moving.
func (o *OATH) Match(code string, now time.Time) (moving int64, ok bool) {
	first, last := o.Moving+1, o.Moving+hotpAhead
	if o.Kind == postern.TOTP {
		first, last = max(0, o.step(now)-TOTPSkew), o.step(now)+TOTPSkew
	}
	for at := first; at <= last; at++ {
		if subtle.ConstantTimeCompare([]byte(o.code(at)), []byte(code)) == 1 && !ok {
			moving, ok = at, true
		}
	}
	return moving, ok
}

// Confirm checks the first code, typed perhaps with spaces, of a new authenticator and uses it
// up: Denied if it is not the authenticator's.
func (o *OATH) Confirm(typed string, now time.Time) error {
	moving, ok := o.Match(strings.Join(strings.Fields(typed), ""), now)
	if !ok || moving <= o.Moving {
		return postern.Errorf(postern.Denied, "that is not its code; nothing was added").
			WithHint("see that its clock is right, and begin again")
	}
	o.Moving = moving
	return nil
}

// URL returns the otpauth: URL that an app reads from a QR code. It contains the
// secret.
//
// See https://github.com/google/google-authenticator/wiki/Key-Uri-Format
func (o *OATH) URL(issuer string) string {
	q := url.Values{}
	q.Set("secret", base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(o.Secret))
	q.Set("issuer", issuer)
	q.Set("algorithm", o.Hash)
	q.Set("digits", strconv.Itoa(o.Digits))
	if o.Kind == postern.TOTP {
		q.Set("period", strconv.Itoa(int(o.Period/time.Second)))
	} else {
		q.Set("counter", strconv.FormatInt(o.Moving+1, 10))
	}
	// Apps want %20, not +, and no colon inside the two names.
	name := url.PathEscape(strings.ReplaceAll(issuer, ":", " ") + ":" + strings.ReplaceAll(o.Person, ":", " "))
	return "otpauth://" + string(o.Kind) + "/" + name + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// digits returns the code if it is 6 to 8 digits, spaces between them aside.
func digits(typed string) (string, bool) {
	code := strings.Join(strings.Fields(typed), "")
	for i := range len(code) {
		if code[i] < '0' || code[i] > '9' {
			return "", false
		}
	}
	return code, len(code) >= 6 && len(code) <= 8
}

// Lockout returns for how long a person's short codes are refused after so many wrong
// ones in a row: a minute after five, doubling up to six hours.
func Lockout(wrong int64) time.Duration {
	const free, longest = 5, 6 * time.Hour
	switch n := wrong - free; {
	case n < 0:
		return 0
	case n > 8:
		return longest
	default:
		return min(time.Minute<<n, longest)
	}
}

// Guess is a short code that is tried on a person's authenticators.
type Guess struct {
	Person string
	Code   string
	Now    time.Time
	// Events returns the events for an accepted code of that authenticator. It may be
	// called more than once.
	Events func(authenticator postern.Link) []postern.Event
}

// GuessResult is the result of a Guess.
type GuessResult struct {
	Verdict        Verdict
	Authenticator  *OATH     // that made the code; nil for a wrong code
	Authenticators int       // active ones of the person
	Until          time.Time // codes are refused until then; zero: they are not
}

// Backup codes replace a one-time password for a person who has lost their keys. There
// are ten, each valid once and of 100 random bits; only their hashes are stored.
const (
	backupCodes    = 10
	backupAlphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's
	backupLetters  = 20
	backupGroup    = 4
)

// NewBackupCodes returns ten new codes and, in the same order, the hashes to store.
func NewBackupCodes(person string) (codes []string, hashes [][32]byte) {
	for range backupCodes {
		var random [backupLetters]byte
		rand.Read(random[:])
		var b strings.Builder
		for i, r := range random {
			if i > 0 && i%backupGroup == 0 {
				b.WriteByte('-')
			}
			b.WriteByte(backupAlphabet[r&31])
		}
		hash, _ := backupHash(person, b.String())
		codes, hashes = append(codes, b.String()), append(hashes, hash)
	}
	return codes, hashes
}

// backupHash returns the hash of a backup code, typed with or without dashes, capitals
// and the usual misreadings. ok is false if it cannot be one. The code has 100 random
// bits, so one round of SHA-256 protects it.
func backupHash(person, typed string) (hash [32]byte, ok bool) {
	if len(typed) > 128 {
		return hash, false
	}
	code := strings.NewReplacer("-", "", " ", "", "\t", "", "\r", "", "\n", "", "o", "0", "i", "1", "l",
		"1").Replace(strings.ToLower(typed))
	if len(code) != backupLetters || strings.Trim(code, backupAlphabet) != "" {
		return hash, false
	}
	return sha256.Sum256([]byte("postern recovery code\x00" + person + "\x00" + code)), true
}
