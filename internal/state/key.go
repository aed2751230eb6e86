package state

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"golang.org/x/crypto/argon2"
)

// The key-encrypting key comes from the first of these that there is: the
// systemd credential "postern-kek", the passphrase in the file that
// $POSTERN_PASSPHRASE_FILE names, the state directory's file "kek". The first
// and the last hold 64 hexadecimal digits.
const (
	credentialName = "postern-kek"
	passphraseEnv  = "POSTERN_PASSPHRASE_FILE"
)

// loadKey returns the key-encrypting key of a state directory that has one.
func loadKey(dir string) ([32]byte, error) {
	if creds := os.Getenv("CREDENTIALS_DIRECTORY"); creds != "" {
		path := filepath.Join(creds, credentialName)
		text, err := durable.ReadCredential(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return parseKey(path, text, err)
		}
	}
	kdf, err := durable.ReadSecret(filepath.Join(dir, kdfFile))
	if err == nil {
		return passphraseKey(dir, kdf)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return [32]byte{}, err
	}
	path := filepath.Join(dir, kekFile)
	text, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return [32]byte{}, missing(dir)
	}
	return parseKey(path, text, err)
}

// loadKeys returns the key that seals, and the one before it while both are in
// use.
func loadKeys(dir string) ([][32]byte, error) {
	key, err := loadKey(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, nextKEKFile)
	text, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return [][32]byte{key}, nil
	}
	next, err := parseKey(path, text, err)
	if err != nil {
		return nil, err
	}
	return [][32]byte{next, key}, nil
}

// newKey returns the text of a fresh key.
func newKey() []byte {
	var raw [32]byte
	rand.Read(raw[:]) // never fails
	return keyText(raw)
}

func keyText(key [32]byte) []byte { return []byte(hex.EncodeToString(key[:]) + "\n") }

func parseKey(path string, text []byte, err error) (key [32]byte, _ error) {
	if err != nil {
		return key, err
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != len(key) {
		return key, postern.Errorf(postern.Invalid, "%s does not hold a key: 64 hexadecimal digits", path)
	}
	return [32]byte(raw), nil
}

// createKey makes the key-encrypting key if there is none. A database whose key
// is gone is not given another.
func createKey(dir, url string) error {
	_, err := loadKey(dir)
	if !errors.Is(err, ErrMissing) {
		return err
	}
	if _, err := os.Stat(url); err == nil {
		return postern.Errorf(postern.Conflict, "%s is there, but not the key %s that opens it", url,
			filepath.Join(dir, kekFile)).
			WithHint("restore the key from a backup; or move the database to another place to start with a new one")
	}
	name, text := kekFile, newKey()
	if os.Getenv(passphraseEnv) != "" {
		name, text = kdfFile, []byte(newKDF())
	}
	if err := durable.Ensure(filepath.Join(dir, name), text, 0o600, durable.DirectoryOwner); err != nil {
		return postern.Errorf(postern.Unavailable, "make the key-encrypting key: %w", err)
	}
	return nil
}

// The cost of deriving a key from a passphrase: Argon2id over 64 MiB, as RFC
// 9106 recommends where memory is short. The limits keep a damaged file from
// asking for the whole machine.
const (
	kdfFormat    = "argon2id v=19 m=%d t=%d p=%d salt=%s\n"
	kdfMemory    = 64 << 10 // KiB
	kdfTime      = 3
	kdfThreads   = 4
	kdfMaxMemory = 4 << 20 // KiB
	kdfMaxTime   = 100
)

func newKDF() string {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	return fmt.Sprintf(kdfFormat, kdfMemory, kdfTime, kdfThreads, base64.RawStdEncoding.EncodeToString(salt))
}

// passphraseKey derives the key from the passphrase as the file kdfFile says.
func passphraseKey(dir string, kdf []byte) (key [32]byte, err error) {
	path := os.Getenv(passphraseEnv)
	if path == "" {
		return key, postern.Errorf(postern.Invalid, "the keys in %s are under a passphrase", dir).
			WithHint("write it to a file of mode 0600 and name that in $%s", passphraseEnv)
	}
	passphrase, err := ReadPassphrase(path)
	if err != nil {
		return key, err
	}
	return deriveKey(filepath.Join(dir, kdfFile), kdf, passphrase)
}

// ReadPassphrase reads a passphrase from a file that no other user can read.
func ReadPassphrase(path string) ([]byte, error) {
	passphrase, err := durable.ReadSecret(path)
	if err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "read the passphrase: %w", err)
	}
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	if len(passphrase) < 8 {
		return nil, postern.Errorf(postern.Invalid, "the passphrase in %s is shorter than 8 bytes", path)
	}
	return passphrase, nil
}

// deriveKey derives a key from a passphrase as the text of a file says.
func deriveKey(path string, kdf, passphrase []byte) (key [32]byte, err error) {
	var memory, time uint32
	var threads uint8
	var text string
	_, err = fmt.Sscanf(string(kdf), kdfFormat, &memory, &time, &threads, &text)
	salt, err64 := base64.RawStdEncoding.DecodeString(text)
	if err != nil || err64 != nil || len(salt) < 16 ||
		memory > kdfMaxMemory || time < 1 || time > kdfMaxTime || threads < 1 {
		return key, postern.Errorf(postern.Invalid, "%s is damaged", path)
	}
	return [32]byte(argon2.IDKey(passphrase, salt, time, memory, threads, 32)), nil
}
