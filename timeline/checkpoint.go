package timeline

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
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
	name := "postern-log-" + hex.EncodeToString(randomBytes(6))
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

// Sign returns the checkpoint as a signed note.
func (c Checkpoint) Sign(s note.Signer) (string, error) {
	msg, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)}, s)
	return string(msg), err
}

// maxCheckpoint bounds a signed checkpoint in bytes.
const maxCheckpoint = 16 << 10

// OpenCheckpoint checks a signed checkpoint's signature and returns what it
// says. The origin must be the verifier's name.
func OpenCheckpoint(signed string, v note.Verifier) (Checkpoint, error) {
	if len(signed) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("checkpoint: longer than %d bytes", maxCheckpoint)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) < 4 {
		return Checkpoint{}, fmt.Errorf("checkpoint: not origin, size and root")
	}
	c := Checkpoint{Origin: lines[0]}
	c.Size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("checkpoint: bad size")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("checkpoint: bad root")
	}
	c.Root = tlog.Hash(root)
	if c.Origin != v.Name() {
		return Checkpoint{}, fmt.Errorf("checkpoint: of the log %q, not %q", c.Origin, v.Name())
	}
	return c, nil
}
