package ca

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
)

// File is one file of an exported layout.
type File struct {
	Name string // relative to the directory of the export, with slashes
	Data []byte
	Mode fs.FileMode
}

// modes of exported files.
const (
	modePublic  = 0o644
	modePrivate = 0o600
)

// CheckFiles fails with Conflict if one of the files exists, so that nothing is
// issued which then could not be written.
func CheckFiles(dir string, files []string, force bool) error {
	if force {
		return nil
	}
	for _, name := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Lstat(path); err == nil {
			return exists(path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return postern.Errorf(postern.Unavailable, "look for %s: %w", path, err)
		}
	}
	return nil
}

func exists(path string) error {
	return postern.Errorf(postern.Conflict, "%s exists already", path).WithHint("choose another directory with --out, or replace it with --force")
}

// WriteFiles writes files into a directory, which is made if need be, each as a
// whole: a reader sees the old one or the new one. Without force it fails with
// Conflict where one exists already.
func WriteFiles(dir string, files []File, force bool) error {
	var list []string
	for _, f := range files {
		list = append(list, f.Name)
	}
	if err := CheckFiles(dir, list, force); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := writeFile(path, f, force); err != nil {
			if postern.CodeOf(err) == postern.Conflict {
				return err
			}
			return postern.Errorf(postern.Unavailable, "write %s: %w", path, err)
		}
	}
	return nil
}

func writeFile(path string, f File, force bool) error {
	dir := filepath.Dir(path)
	mode := fs.FileMode(0o755)
	if filepath.Base(dir) == "private" {
		mode = 0o700
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".postern-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.Write(f.Data); err != nil {
		return err
	}
	if err := tmp.Chmod(f.Mode); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if force {
		return os.Rename(tmp.Name(), path)
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return exists(path)
	} else if err != nil {
		return err
	}
	return nil
}
