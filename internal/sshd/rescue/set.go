// Package rescue gives a host one-time codes for when no server answers. An administrator
// makes a set of them on the server and keeps them on paper; the host has their hashes
// alone, accepts each once, and reports it.
package rescue

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// Set is the codes of a host, as hashes.
type Set struct {
	ID     string    `json:"id"` // random, 32 hex digits
	Made   time.Time `json:"made"`
	Salt   []byte    `json:"salt"`
	Hashes [][]byte  `json:"hashes"` // Argon2id of each code
}

// Bounds of a set.
const (
	MaxCodes = 20
	saltLen  = 16
	hashLen  = 32
)

// prefix begins a code, so that a host tells one from a one-time password.
const prefix = "RESCUE"

// letters is the length of the random part of a code: 80 bits.
const letters = 16

// New makes a set of n codes, 1 to [MaxCodes], and returns them as they are written down:
// RESCUE-ABCD-EFGH-IJKL-MNOP.
func New(n int, now time.Time) (codes []string, s Set) {
	var id [16]byte
	rand.Read(id[:])
	s = Set{ID: hex.EncodeToString(id[:]), Made: now.UTC().Truncate(time.Second), Salt: make([]byte, saltLen)}
	rand.Read(s.Salt)
	for range min(max(n, 1), MaxCodes) {
		var secret [letters * 5 / 8]byte
		rand.Read(secret[:])
		text := base32.StdEncoding.EncodeToString(secret[:])
		s.Hashes = append(s.Hashes, s.hash(prefix+text))
		codes = append(codes, strings.Join([]string{prefix, text[:4], text[4:8], text[8:12], text[12:]}, "-"))
	}
	return codes, s
}

// hash returns the Argon2id of a plain code (RFC 9106), with 19 MiB of memory: codes are
// random, so that no dictionary helps to find one.
func (s Set) hash(plain string) []byte {
	return argon2.IDKey([]byte(plain), s.Salt, 2, 19<<10, 1, hashLen)
}

// plain returns a code without what people write into it; ok is false for what can be
// none.
func plain(typed string) (code string, ok bool) {
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(typed))
	return code, len(code) == len(prefix)+letters && strings.HasPrefix(code, prefix)
}

// valid reports whether the set can be one that New made.
func (s Set) valid() bool {
	ok := len(s.ID) == 32 && len(s.Salt) == saltLen && len(s.Hashes) <= MaxCodes
	for _, h := range s.Hashes {
		ok = ok && len(h) == hashLen
	}
	return ok
}

// find returns which hash is that of a plain code, -1 for none.
func (s Set) find(plain string) int {
	sum, found := s.hash(plain), -1
	for i, h := range s.Hashes {
		if subtle.ConstantTimeCompare(sum, h) == 1 {
			found = i
		}
	}
	return found
}
