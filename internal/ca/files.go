package ca

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
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

// CheckFiles fails with Conflict if one of the files exists with other content,
// or with any if Data is nil: so that nothing is issued which then could not be
// written.
func CheckFiles(dir string, files []File, force bool) error {
	if force {
		return nil
	}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		same, err := holds(path, f.Data)
		if err == nil && !same {
			return exists(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return postern.Errorf(postern.Unavailable, "look for %s: %w", path, err)
		}
	}
	return nil
}

// holds reports whether a file is a plain one with that content.
func holds(path string, data []byte) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	if data == nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false, nil
	}
	have, err := os.ReadFile(path)
	return bytes.Equal(have, data), err
}

func exists(path string) error {
	return postern.Errorf(postern.Conflict, "%s exists already",
		path).WithHint("choose another directory, or replace the file")
}

// WriteFiles writes files into a directory, which is made if need be, each as a
// whole: a reader sees the old one or the new one. Without force it fails with
// Conflict where one exists already with other content.
func WriteFiles(dir string, files []File, force bool) error {
	if err := CheckFiles(dir, files, force); err != nil {
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
	if force {
		return durable.Replace(path, f.Data, f.Mode)
	}
	err := durable.Create(path, f.Data, f.Mode)
	if errors.Is(err, fs.ErrExist) {
		if same, err := holds(path, f.Data); err != nil || same {
			return err
		}
		return exists(path)
	}
	return err
}
