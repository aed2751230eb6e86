package state

import (
	"crypto/subtle"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

// keySource is where the key-encrypting key comes from, which is where its successor goes.
type keySource int

const (
	fromFile keySource = iota
	fromCredential
	fromPassphrase
)

// nextKDFFile says how the next key is derived from the next passphrase.
const nextKDFFile = kdfFile + ".next"

// sourceOf returns where the key of a state directory comes from, in the order of loadKey.
func sourceOf(dir string) (keySource, error) {
	there := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	creds := os.Getenv("CREDENTIALS_DIRECTORY")
	switch {
	case creds != "" && there(filepath.Join(creds, credentialName)):
		return fromCredential, nil
	case there(filepath.Join(dir, kdfFile)):
		return fromPassphrase, nil
	case there(filepath.Join(dir, kekFile)):
		return fromFile, nil
	}
	return 0, missing(dir)
}

// taken reports whether the next key is the key already, as after its credential was
// replaced, and if so removes its file.
func (s keySource) taken(dir, next string) (bool, error) {
	text, err := durable.ReadSecret(next)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	want, err := parseKey(next, text, err)
	if err != nil {
		return false, err
	}
	is, err := loadKey(dir)
	if err != nil || subtle.ConstantTimeCompare(want[:], is[:]) == 0 {
		return false, err
	}
	return true, removeNext(dir, next)
}

func removeNext(dir, next string) error {
	return errors.Join(durable.Remove(next), durable.Remove(filepath.Join(dir, takenFile)))
}

// makeNext makes the next key, unless an earlier call has.
func (s keySource) makeNext(dir, next string, passphrase []byte) error {
	text := newKey()
	if s == fromPassphrase {
		var err error
		if text, err = deriveNext(dir, next, passphrase); err != nil {
			return err
		}
	} else if len(passphrase) > 0 {
		return postern.Errorf(postern.Invalid, "the key-encrypting key does not come from a passphrase").
			WithHint("give no new passphrase")
	}
	if err := durable.Ensure(next, text, 0o600, durable.DirectoryOwner); err != nil {
		return postern.Errorf(postern.Unavailable, "make the new key: %w", err)
	}
	return nil
}

// deriveNext derives the next key from the next passphrase, which is the same one in each
// call until the key was replaced.
func deriveNext(dir, next string, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, postern.Errorf(postern.Invalid, "the key-encrypting key comes from a passphrase").
			WithHint("give the new passphrase in a file")
	}
	path := filepath.Join(dir, nextKDFFile)
	if err := durable.Ensure(path, []byte(newKDF()), 0o600, durable.DirectoryOwner); err != nil {
		return nil, postern.Errorf(postern.Unavailable, "make the new key: %w", err)
	}
	kdf, err := durable.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	key, err := deriveKey(path, kdf, passphrase)
	if err != nil {
		return nil, err
	}
	text, err := durable.ReadSecret(next)
	if errors.Is(err, fs.ErrNotExist) {
		return keyText(key), nil
	}
	begun, err := parseKey(next, text, err)
	if err == nil && begun != key {
		err = postern.Errorf(postern.Invalid, "the change of the key was begun with another passphrase").
			WithHint("give that one again")
	}
	return text, err
}

// finish puts the next key, under which everything is sealed now, in the place of the old
// one.
func (s keySource) finish(dir, next string, passphrase []byte, sealed int) (r Rekeyed, err error) {
	r = Rekeyed{Sealed: sealed}
	switch s {
	case fromCredential:
		r.Next = next
		return r, nil
	case fromPassphrase:
		r.Key = os.Getenv(passphraseEnv)
		err = durable.Output(r.Key, append(passphrase, '\n'), 0o600)
		if err == nil {
			err = durable.Rename(filepath.Join(dir, nextKDFFile), filepath.Join(dir, kdfFile))
		}
	default:
		r.Key = filepath.Join(dir, kekFile)
		err = durable.Rename(next, r.Key)
	}
	if err == nil {
		err = removeNext(dir, next)
	}
	if err != nil {
		return Rekeyed{}, postern.Errorf(postern.Unavailable, "put the new key in place: %w", err).
			WithHint("change the key again: nothing is lost")
	}
	return r, nil
}
