package timeline

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the signature type of Ed25519 cosignatures in C2SP's signed-note.
const algCosignature = 4

// Witness is a witness's public key: it verifies cosignatures, which say that the witness
// saw a checkpoint at a time, and that it is consistent with all that it saw of that log
// before (C2SP tlog-cosignature, cosignature/v1 with Ed25519). It is a [note.Verifier].
type Witness struct {
	name string
	key  ed25519.PublicKey
}

// Cosigner cosigns checkpoints with a witness's private key. It is a [note.Signer].
type Cosigner struct {
	Witness
	private ed25519.PrivateKey
	now     func() time.Time
}

// NewWitnessKey makes the key of a new witness. Its name is a URL without a scheme, and
// has neither spaces nor a plus.
func NewWitnessKey(name string) (Key, error) {
	if !keyName(name) {
		return Key{}, postern.Errorf(postern.Invalid, "%q is not the name of a witness", name).
			WithHint("for example: witness.example.com")
	}
	private := ed25519.NewKeyFromSeed(randomBytes(ed25519.SeedSize))
	w := Witness{name, private.Public().(ed25519.PublicKey)}
	return Key{Secret: "PRIVATE+KEY+" + w.encode(private.Seed()), Verifier: w.String()}, nil
}

func keyName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.Contains(name, "+") &&
		strings.IndexFunc(name, unicode.IsSpace) < 0
}

// NewCosigner returns the cosigner with a key that NewWitnessKey made.
func NewCosigner(secret string, now func() time.Time) (*Cosigner, error) {
	name, hash, seed, ok := splitKey(strings.TrimPrefix(secret, "PRIVATE+KEY+"))
	if !ok || !strings.HasPrefix(secret, "PRIVATE+KEY+") || len(seed) != ed25519.SeedSize {
		return nil, postern.Errorf(postern.Invalid, "that is not a witness's private key")
	}
	private := ed25519.NewKeyFromSeed(seed)
	c := &Cosigner{Witness{name, private.Public().(ed25519.PublicKey)}, private, now}
	if c.KeyHash() != hash {
		return nil, postern.Errorf(postern.Invalid, "the witness's private key is damaged")
	}
	return c, nil
}

// NewWitness reads a witness's public key: NAME+HASH+KEY.
func NewWitness(key string) (*Witness, error) {
	name, hash, public, ok := splitKey(key)
	w := &Witness{name, public}
	if !ok || len(public) != ed25519.PublicKeySize || w.KeyHash() != hash {
		return nil, postern.Errorf(postern.Invalid, "%.80q is not a witness's public key", key).
			WithHint("it is NAME+HASH+KEY, of an Ed25519 key for cosignatures: the witness's operator knows it")
	}
	return w, nil
}

// splitKey reads NAME+HASH+base64(type || key).
func splitKey(text string) (name string, hash uint32, key []byte, ok bool) {
	name, rest, _ := strings.Cut(text, "+")
	hex32, encoded, _ := strings.Cut(rest, "+")
	h, err := hex.DecodeString(hex32)
	raw, err2 := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || err2 != nil || len(h) != 4 || len(raw) < 1 || raw[0] != algCosignature || !keyName(name) {
		return "", 0, nil, false
	}
	return name, binary.BigEndian.Uint32(h), raw[1:], true
}

func (w *Witness) encode(key []byte) string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.KeyHash(),
		base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, key...)))
}

// String returns the public key, as [NewWitness] reads it.
func (w *Witness) String() string { return w.encode(w.key) }

// Name returns the witness's name.
func (w *Witness) Name() string { return w.name }

// KeyHash returns the key's ID.
func (w *Witness) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(w.name+"\n"+string(rune(algCosignature))), w.key...))
	return binary.BigEndian.Uint32(sum[:])
}

// Verify implements [note.Verifier].
func (w *Witness) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(signature)
	return at <= math.MaxInt64 && ed25519.Verify(w.key, cosigned(at, text), signature[8:])
}

// Sign implements [note.Signer].
func (c *Cosigner) Sign(text []byte) ([]byte, error) {
	if _, err := ParseCheckpoint(string(text)); err != nil {
		return nil, err
	}
	at := uint64(c.now().Unix())
	return append(binary.BigEndian.AppendUint64(nil, at), ed25519.Sign(c.private, cosigned(at, text))...), nil
}

// cosigned is the message that is signed.
func cosigned(at uint64, text []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), text...)
}

// Cosignatures returns when each of the witnesses cosigned the checkpoint that is signed,
// by name. It fails if a signature of one of them is not valid.
func Cosignatures(signed string, witnesses ...*Witness) (map[string]time.Time, error) {
	if len(signed) > maxCheckpoint {
		return nil, errLong
	}
	verifiers := make([]note.Verifier, len(witnesses))
	for i, w := range witnesses {
		verifiers[i] = w
	}
	n, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
	if _, none := err.(*note.UnverifiedNoteError); none { //nolint:errorlint // returned as it is
		return map[string]time.Time{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	times := map[string]time.Time{}
	for _, s := range n.Sigs {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
		times[s.Name] = time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC() // verified: the length is right
	}
	return times, nil
}

// Cosign returns the line with the cosigner's signature of a checkpoint's text.
func (c *Cosigner) Cosign(text string) (string, error) {
	signed, err := note.Sign(&note.Note{Text: text}, c)
	return strings.TrimPrefix(string(signed), text+"\n"), err
}

// AddCosignatures returns the signed checkpoint with a line of signature of each of those
// witnesses, as one answered it. Further lines, and those of others, are left out: a witness cannot take
// the room of the others. It fails if there is none.
func AddCosignatures(signed, lines string, witnesses ...*Witness) (string, error) {
	if len(signed)+len(lines) > maxCheckpoint {
		return "", errLong
	}
	kept := signed
	text, _, _ := strings.Cut(signed, "\n\n")
	for _, w := range witnesses {
		if line := w.lineIn(text, lines); line != "" && !strings.Contains(kept, line) {
			kept += line
		}
	}
	if kept == signed {
		return "", fmt.Errorf("there is no valid cosignature")
	}
	return kept, nil
}

// lineIn returns the first line with a valid signature of the witness under a text, "" if
// there is none.
func (w *Witness) lineIn(text, lines string) string {
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, "— "+w.name+" ") {
			continue
		}
		if times, err := Cosignatures(text+"\n\n"+line, w); err == nil && len(times) == 1 {
			return line
		}
	}
	return ""
}
