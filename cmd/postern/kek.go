package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-project/postern"
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

// loadKEK returns the key-encrypting key of a state directory that has one.
func loadKEK(dir string) ([32]byte, error) {
	if creds := os.Getenv("CREDENTIALS_DIRECTORY"); creds != "" {
		path := filepath.Join(creds, credentialName)
		text, err := readSecret(path, 0o007) // systemd keeps the directory for the service alone
		if !errors.Is(err, fs.ErrNotExist) {
			return parseKEK(path, text, err)
		}
	}
	kdf, err := readPrivate(filepath.Join(dir, kdfFile))
	if err == nil {
		return passphraseKEK(dir, kdf)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return [32]byte{}, err
	}
	path := filepath.Join(dir, kekFile)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return [32]byte{}, noState(dir)
	}
	return parseKEK(path, text, err)
}

// nextKEKFile is the key that takes the place of the file kek, while values are
// sealed again.
const nextKEKFile = "kek.next"

// loadKEKs returns the key that seals, and the one before it while both are in
// use.
func loadKEKs(dir string) ([][32]byte, error) {
	key, err := loadKEK(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, nextKEKFile)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return [][32]byte{key}, nil
	}
	next, err := parseKEK(path, text, err)
	if err != nil {
		return nil, err
	}
	return [][32]byte{next, key}, nil
}

// newKEK returns the text of a fresh key.
func newKEK() []byte {
	var raw [32]byte
	rand.Read(raw[:]) // never fails
	return []byte(hex.EncodeToString(raw[:]) + "\n")
}

func parseKEK(path string, text []byte, err error) (key [32]byte, _ error) {
	if err != nil {
		return key, err
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != len(key) {
		return key, postern.Errorf(postern.Invalid, "%s does not hold a key: 64 hexadecimal digits", path)
	}
	return [32]byte(raw), nil
}

// createKEK makes the key-encrypting key if there is none, and returns it. A
// database whose key is gone is not given another.
func createKEK(dir, url string) ([32]byte, error) {
	key, err := loadKEK(dir)
	if postern.CodeOf(err) != postern.NotFound {
		return key, err
	}
	if _, err := os.Stat(url); err == nil {
		return key, postern.Errorf(postern.Conflict, "%s is there, but not the key %s that opens it", url, filepath.Join(dir, kekFile)).
			WithHint("bring the key back from a backup; or move the database away to begin anew")
	}
	if os.Getenv(passphraseEnv) != "" {
		err = writeOnce(filepath.Join(dir, kdfFile), []byte(newKDF()), 0o600)
	} else {
		err = writeOnce(filepath.Join(dir, kekFile), newKEK(), 0o600)
	}
	if err != nil {
		return key, postern.Errorf(postern.Unavailable, "make the key-encrypting key: %w", err)
	}
	return loadKEK(dir)
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

// passphraseKEK derives the key from the passphrase as the file's line says.
func passphraseKEK(dir string, kdf []byte) (key [32]byte, err error) {
	var memory, time uint32
	var threads uint8
	var text string
	_, err = fmt.Sscanf(string(kdf), kdfFormat, &memory, &time, &threads, &text)
	salt, err64 := base64.RawStdEncoding.DecodeString(text)
	if err != nil || err64 != nil || len(salt) < 16 || memory > kdfMaxMemory || time < 1 || time > kdfMaxTime || threads < 1 {
		return key, postern.Errorf(postern.Invalid, "%s is damaged", filepath.Join(dir, kdfFile))
	}
	path := os.Getenv(passphraseEnv)
	if path == "" {
		return key, postern.Errorf(postern.Invalid, "the keys in %s are under a passphrase", dir).
			WithHint("write it to a file of mode 0600 and name that in $%s", passphraseEnv)
	}
	passphrase, err := readPrivate(path)
	if err != nil {
		return key, err
	}
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	if len(passphrase) < 8 {
		return key, postern.Errorf(postern.Invalid, "the passphrase in %s is shorter than 8 bytes", path)
	}
	return [32]byte(argon2.IDKey(passphrase, salt, time, memory, threads, 32)), nil
}

// readPrivate reads a small file that nobody else may read.
func readPrivate(path string) ([]byte, error) {
	return readSecret(path, 0o077)
}

// readCredential reads a small file that nobody else may read, or that systemd
// keeps for this service.
func readCredential(path string) ([]byte, error) {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		return readSecret(path, 0o007)
	}
	return readPrivate(path)
}

// readSecret reads a small file that must have none of the permissions in
// deny, and must be ours or root's.
func readSecret(path string, deny fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, postern.Errorf(postern.Denied, "%s may not be read by this user", path).
			WithHint("run postern as the user that the state directory belongs to, or as root")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.Perm()&deny != 0 || !mode.IsRegular() {
		return nil, postern.Errorf(postern.Denied, "%s can be read by others (mode %04o)", path, mode.Perm()).
			WithHint("chmod 600 %s; and if somebody may have read it, make a new one", path)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() && uid != 0 && os.Geteuid() != 0 {
		return nil, postern.Errorf(postern.Denied, "%s belongs to another user", path)
	}
	return io.ReadAll(io.LimitReader(f, 64<<10))
}
