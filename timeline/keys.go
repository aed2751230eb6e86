package timeline

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Keys are the public keys of one log, while one follows another and afterwards. The keys in
// use all sign each checkpoint, so that who has either verifies it. What a retired key
// signed stays valid as an earlier checkpoint or in a proof; it vouches for no present one.
//
// Keys is a [note.Verifier] for signatures of the newest key.
type Keys struct {
	note.Verifier
	inUse, all note.Verifiers
}

// retiredKey begins the line of a key that signs no more.
const retiredKey = "retired "

// InUse returns the keys that sign, without those that were retired.
func (k Keys) InUse() note.Verifiers { return k.inUse }

// maxKeys bounds the keys of one log.
const maxKeys = 64

// ParseKeys reads the public keys of a log, a line each: those in use, oldest first, in
// note's encoding NAME+HASH+KEY, then those that sign no more, behind "retired ". They have one name. One key
// alone is as [note.NewVerifier] reads it.
func ParseKeys(text string) (Keys, error) {
	var inUse, all []note.Verifier
	for line := range strings.Lines(text) {
		key, retired := strings.CutPrefix(strings.TrimSpace(line), retiredKey)
		v, err := note.NewVerifier(key)
		switch {
		case err != nil:
			return Keys{}, fmt.Errorf("a log's public key: %w", err)
		case len(all) == maxKeys, len(all) > 0 && v.Name() != all[0].Name():
			return Keys{}, fmt.Errorf("the public keys are not those of one log")
		}
		if all = append(all, v); !retired {
			inUse = append(inUse, v)
		}
	}
	if len(inUse) == 0 {
		return Keys{}, fmt.Errorf("no public key of a log that signs")
	}
	return Keys{inUse[len(inUse)-1], note.VerifierList(inUse...), note.VerifierList(all...)}, nil
}

// FormatKeys writes public keys as ParseKeys reads them.
func FormatKeys(retired, inUse []string) string {
	var b strings.Builder
	for _, key := range inUse {
		b.WriteString(key + "\n")
	}
	for _, key := range retired {
		b.WriteString(retiredKey + key + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// NextKey makes the next signing key of a log of that name.
func NextKey(name string) (Key, error) { return newKey(name) }

// anyOf returns the verifiers that v stands for.
func anyOf(v note.Verifier) note.Verifiers {
	if k, ok := v.(Keys); ok {
		return k.all
	}
	return note.VerifierList(v)
}

// OpenLatest is [OpenCheckpoint] for the latest checkpoint of a log, which a retired key
// does not vouch for.
func OpenLatest(signed string, v note.Verifier) (Checkpoint, error) {
	if k, ok := v.(Keys); ok {
		k.all = k.inUse
		return OpenCheckpoint(signed, k)
	}
	return OpenCheckpoint(signed, v)
}

// SignedBy reports whether a signed note has signatures of just these keys, as their names
// and hashes say. It checks none of them.
func SignedBy(signed string, signers []note.Signer) bool {
	_, err := note.Open([]byte(signed), note.VerifierList())
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) || len(unverified.Note.UnverifiedSigs) != len(signers) {
		return false
	}
	for i, s := range unverified.Note.UnverifiedSigs {
		if s.Name != signers[i].Name() || s.Hash != signers[i].KeyHash() {
			return false
		}
	}
	return true
}
