package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
)

// maxSecret bounds a secret's file; what is beyond is not read.
const maxSecret = 64 << 10

// ReadSecret reads a small file that no other user can read and that belongs to this
// user or root: Denied otherwise, fs.ErrNotExist if there is none.
func ReadSecret(path string) ([]byte, error) {
	return readSecret(path, 0o077)
}

// ReadCredential is ReadSecret, and also reads a file in $CREDENTIALS_DIRECTORY,
// which systemd keeps for this service alone (systemd.exec(5)); there the
// group's permissions are systemd's own.
func ReadCredential(path string) ([]byte, error) {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		return readSecret(path, 0o007)
	}
	return ReadSecret(path)
}

// readSecret reads a small file that must have none of the permissions in deny.
func readSecret(path string, deny fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, postern.Errorf(postern.Denied, "%s may not be read by this user", path).
			WithHint("run this as the user that %s belongs to, or as root", filepath.Dir(path))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(path, info, deny); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxSecret))
}
