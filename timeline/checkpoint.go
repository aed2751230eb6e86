package timeline

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Key is the log's signing key. Its text is secret.
type Key struct {
	Secret   string // note's encoding of the private key
	Verifier string // note's encoding of the public key: NAME+HASH+KEY
}

// NewKey makes a signing key for a new log, under a name of its own.
func NewKey() (Key, error) {
	return newKey("postern-log-" + hex.EncodeToString(randomBytes(6)))
}

func newKey(name string) (Key, error) {
	secret, verifier, err := note.GenerateKey(rand.Reader, name)
	return Key{secret, verifier}, err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// Checkpoint says that the log of that origin had that size and root.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// Sign returns the checkpoint as a note that each of the signers signed.
func (c Checkpoint) Sign(s ...note.Signer) (string, error) {
	msg, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)}, s...)
	return string(msg), err
}

// maxCheckpoint bounds a signed checkpoint in bytes.
const maxCheckpoint = 16 << 10

var errLong = fmt.Errorf("checkpoint: longer than %d bytes", maxCheckpoint)

// OpenCheckpoint checks a signed checkpoint's signature, which may be by any of [Keys], and
// returns what it says. The origin must be the verifier's name.
func OpenCheckpoint(signed string, v note.Verifier) (Checkpoint, error) {
	if len(signed) > maxCheckpoint {
		return Checkpoint{}, errLong
	}
	n, err := note.Open([]byte(signed), anyOf(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != v.Name() {
		return Checkpoint{}, fmt.Errorf("checkpoint: of the log %q, not %q", c.Origin, v.Name())
	}
	return c, nil
}

// ParseCheckpoint reads a checkpoint's text: origin, size, root, and lines of extensions,
// which are ignored (C2SP tlog-checkpoint).
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || slices.Contains(lines[:len(lines)-1], "") || lines[len(lines)-1] != "" {
		return Checkpoint{}, fmt.Errorf("checkpoint: not origin, size and root")
	}
	size, err := ParseSize(lines[1])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: bad size")
	}
	root, err := ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: bad root")
	}
	return Checkpoint{lines[0], size, root}, nil
}

// ParseSize reads the size of a tree: decimal, without leading zeroes.
func ParseSize(text string) (int64, error) {
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != text {
		return 0, fmt.Errorf("%.32q is not the size of a tree", text)
	}
	return size, nil
}

// ParseHash reads a hash in base64, of which each hash has one form.
func ParseHash(text string) (h tlog.Hash, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != tlog.HashSize || strings.ContainsAny(text, "\r\n") {
		return h, fmt.Errorf("%.64q is not a hash", text)
	}
	return tlog.Hash(raw), nil
}
