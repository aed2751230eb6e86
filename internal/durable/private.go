package durable

import (
	"errors"
	"io/fs"
	"os"

	"github.com/postern-project/postern"
)

// CreatePrivate makes a file of mode 0600 that is written bit by bit: a Conflict
// error if there is one of that name.
func CreatePrivate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, postern.Errorf(postern.Conflict, "%s is there already",
			path).WithHint("name another file, or remove it")
	case err != nil:
		return nil, postern.Errorf(postern.Invalid, "%w", err)
	}
	return f, nil
}

// OpenPrivate opens a file that is written bit by bit. One that is there is emptied
// and gets the mode 0600; what is no plain file stays as it is.
func OpenPrivate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "%w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = errors.Join(f.Chmod(0o600), f.Truncate(0))
	}
	if err != nil {
		return nil, errors.Join(postern.Errorf(postern.Invalid, "%w", err), f.Close())
	}
	return f, nil
}
