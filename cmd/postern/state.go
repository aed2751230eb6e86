package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
)

// stateDir returns the state directory: --state, else $POSTERN_STATE, else
// /var/lib/postern for root, else $XDG_STATE_HOME/postern, else
// ~/.local/state/postern.
func (a *app) stateDir() (string, error) {
	for _, dir := range []string{a.state, os.Getenv("POSTERN_STATE")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if os.Geteuid() == 0 {
		return "/var/lib/postern", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "postern"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", postern.Errorf(postern.Invalid, "no state directory: %w", err).WithHint("give one with --state")
	}
	return filepath.Join(home, ".local", "state", "postern"), nil
}

// The files of a state directory.
const (
	databaseFile = "postern.db"   // SQLite, unless a URL says otherwise
	urlFile      = "database"     // the database's URL, when it is not that file
	verifierFile = "log.vkey"     // the timeline's public key
	kekFile      = "kek"          // the key-encrypting key
	kdfFile      = "kek.argon2id" // how it comes from a passphrase instead
)

// state is an open state directory.
type state struct {
	Dir   string
	Store *store.DB
}

// Close closes the store.
func (s *state) Close() error { return s.Store.Close() }

// path returns the path of a file in the state directory.
func (s *state) path(name string) string { return filepath.Join(s.Dir, name) }

// open opens the state directory, which must have been made by init or run.
func (a *app) open(ctx context.Context) (*state, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	url, err := databaseURL(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(url); url == filepath.Join(dir, databaseFile) && errors.Is(err, fs.ErrNotExist) {
		return nil, noState(dir)
	}
	keys, err := loadKEKs(dir)
	if err != nil {
		return nil, err
	}
	return openState(ctx, dir, url, keys)
}

func openState(ctx context.Context, dir, url string, keys [][32]byte) (*state, error) {
	db, err := store.Open(ctx, store.Config{URL: url, Key: keys[0], OldKeys: keys[1:]})
	if err != nil {
		return nil, err
	}
	return &state{Dir: dir, Store: db}, nil
}

func noState(dir string) error {
	return postern.Errorf(postern.NotFound, "there is no state in %s", dir).
		WithHint("make it with: postern init; or name another directory with --state")
}

// create makes what is missing of the state directory, its key-encrypting key,
// its database and the timeline, and opens it. What is there stays as it is,
// so that a creation that was cut short is finished by the next, and two at
// once end with one state.
func (a *app) create(ctx context.Context) (*state, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, postern.Errorf(postern.Unavailable, "make the state directory: %w", err).
			WithHint("name a directory that you may write with --state")
	}
	url, err := databaseURL(dir)
	if err != nil {
		return nil, err
	}
	if _, err := createKEK(dir, url); err != nil {
		return nil, err
	}
	keys, err := loadKEKs(dir)
	if err != nil {
		return nil, err
	}
	st, err := openState(ctx, dir, url, keys)
	if err != nil {
		return nil, err
	}
	if err := writeOnce(st.path(verifierFile), []byte(st.Store.LogVerifier()+"\n"), 0o644); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// databaseURL returns $POSTERN_DATABASE, else what the state's file says, else
// the path of the SQLite file there.
func databaseURL(dir string) (string, error) {
	if url := os.Getenv("POSTERN_DATABASE"); url != "" {
		return url, nil
	}
	url, err := readPrivate(filepath.Join(dir, urlFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return filepath.Join(dir, databaseFile), nil
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(string(url)), nil
}

// writeOnce writes a file as a whole, unless there is one of that name. It
// succeeds when there is, whoever made it.
func writeOnce(path string, data []byte, mode fs.FileMode) error {
	return writeWhole(path, data, mode, func(new string) error {
		if err := os.Link(new, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Remove(new)
	})
}

// replaceFile writes a file as a whole, in the place of any that is there.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	return writeWhole(path, data, mode, func(new string) error { return os.Rename(new, path) })
}

// writeWhole writes a file beside path, durably, and has it put in its place.
func writeWhole(path string, data []byte, mode fs.FileMode, place func(new string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // if it did not come so far
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := likeDirectory(f); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := place(f.Name()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// likeDirectory gives a file that root makes to the owner of its directory,
// the user that the server runs as.
func likeDirectory(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
