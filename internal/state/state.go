// Package state opens the state directory, which a server and commands share. It has
// the database's address, the keys of its secrets and the running server's process. How
// far the database was seen to be is kept outside of it.
//
// Two processes may use one directory at once: files that must exist once are created
// atomically, by the process that is first.
package state

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
)

// DatabaseFile is the state directory's file with the SQLite database, unless a URL names
// another.
const DatabaseFile = "postern.db"

// MakersFile is the file in the state directory with the CAs, beyond Yubico's, that vouch
// for YubiKeys: PEM.
const MakersFile = "piv-roots.pem"

// Other files of a state directory.
const (
	urlFile      = "database"     // the database's URL, when it is not that file
	verifierFile = "log.vkey"     // the timeline's public key
	kekFile      = "kek"          // the key-encrypting key
	kdfFile      = "kek.argon2id" // how it is derived from a passphrase instead
	nextKEKFile  = "kek.next"     // the key that replaces kek, while secrets are sealed again
	takenFile    = "kek.taken"    // the name of the next key, once a running server uses it
	runFile      = "run.pid"      // the process of the running server, which locks it
)

// Errors that a command may want to explain.
var (
	// ErrMissing says that the state does not exist yet.
	ErrMissing = errors.New("there is no state")
	// ErrRestored says that the database is older than what was seen of it, or that
	// what was seen is not known.
	ErrRestored = errors.New("the database is older than what was seen of it")
	// ErrServed says that a server runs on the state.
	ErrServed = errors.New("postern serves this state already")
	// ErrNotServed says that no server runs on the state.
	ErrNotServed = errors.New("no postern serves the state")
)

// State is an open state directory. Its methods may be called at once from
// several goroutines.
type State struct {
	Dir   string // absolute
	Store *store.DB

	marks    *marks
	epoch    atomic.Int64 // the database's
	refusing atomic.Bool  // the database was restored

	mu       sync.Mutex // one comparison at a time
	compared string     // the checkpoint that the timeline was compared with last
}

// Open opens a state directory; NotFound (ErrMissing) if it was not created yet.
func Open(ctx context.Context, dir string) (*State, error) {
	if err := system.OnlyLinux("a server's state"); err != nil {
		return nil, err
	}
	url, err := databaseURL(dir)
	if err != nil {
		return nil, err
	}
	if err := unfinished(dir, url); err != nil {
		return nil, err
	}
	if _, err := os.Stat(url); url == filepath.Join(dir, DatabaseFile) && errors.Is(err, fs.ErrNotExist) {
		return nil, missing(dir)
	}
	return open(ctx, dir, url)
}

// Create makes what is missing of a state directory, its key-encrypting key, its
// database and the timeline, and opens it. What is there stays as it is, so that
// a creation that was cut short is finished by the next, and two at once end
// with one state.
func Create(ctx context.Context, dir string) (*State, error) {
	if err := system.OnlyLinux("a server's state"); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	url, err := databaseURL(dir)
	if err != nil {
		return nil, err
	}
	if err := unfinished(dir, url); err != nil {
		return nil, err
	}
	if err := createKey(dir, url); err != nil {
		return nil, err
	}
	s, err := open(ctx, dir, url)
	if err != nil {
		return nil, err
	}
	if err := s.Ensure(verifierFile, []byte(s.Store.Timeline().LogVerifier()+"\n"), 0o644); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func open(ctx context.Context, dir, url string) (*State, error) {
	s, err := openFor(ctx, dir, url, dir)
	if err != nil {
		return nil, err
	}
	s.Store.OnCommit(s.committed)
	// Where the state was restored, all but codes and links is served.
	if err := s.CheckRestored(ctx); err != nil && !s.refusing.Load() {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenCopy opens a copy of a state directory, of which no server uses anything up: the
// mark is that of the directory where the state belongs. The database is the one in the
// copy, if it has one, whatever $POSTERN_DATABASE names.
func OpenCopy(ctx context.Context, copied, dir string) (*State, error) {
	url := filepath.Join(copied, DatabaseFile)
	_, err := os.Stat(url)
	if errors.Is(err, fs.ErrNotExist) {
		url, err = databaseURL(copied)
	}
	if err != nil {
		return nil, err
	}
	return openFor(ctx, copied, url, dir)
}

// UsesOwnDatabase fails with Conflict unless the state directory dir, with the files of
// copied, has its database in its own file.
func UsesOwnDatabase(copied, dir string) error {
	url, err := databaseURL(copied)
	if err != nil {
		return err
	}
	own := filepath.Join(dir, DatabaseFile)
	if url == filepath.Join(copied, DatabaseFile) || sameFile(url, own) {
		return nil
	}
	return postern.Errorf(postern.Conflict, "the database of %s is elsewhere, not in %s", dir, own).
		WithHint("set $POSTERN_DATABASE to %s; where the database is to be elsewhere, move that file there "+
			"afterwards", own)
}

// sameFile reports whether two paths name one place, also relative ones.
func sameFile(a, b string) bool {
	a, aerr := filepath.Abs(a)
	b, berr := filepath.Abs(b)
	return aerr == nil && berr == nil && a == b
}

// openFor opens a state with the mark of the state directory markOf.
func openFor(ctx context.Context, dir, url, markOf string) (*State, error) {
	keys, err := loadKeys(dir)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{URL: url, Key: keys[0], OldKeys: keys[1:]})
	if err != nil {
		return nil, err
	}
	return &State{Dir: dir, Store: db, marks: newMarks(markOf, db.Timeline().LogVerifier)}, nil
}

func missing(dir string) error {
	return postern.Errorf(postern.NotFound, "%w in %s", ErrMissing,
		dir).WithHint("make it first, or name another directory")
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return postern.Errorf(postern.Unavailable, "make the state directory: %w", err).
			WithHint("name a directory that this user may write")
	}
	return nil
}

// RestoreFile is in a state directory while a restore puts its files in place.
const RestoreFile = ".restore-unfinished"

// unfinished fails where a restore was cut short.
func unfinished(dir, url string) error {
	_, marked := os.Stat(filepath.Join(dir, RestoreFile))
	_, database := os.Stat(url)
	if marked != nil || url == filepath.Join(dir, DatabaseFile) && database == nil {
		return nil
	}
	return postern.Errorf(postern.Unavailable, "a restore into %s was cut short", dir).WithHint("restore it again")
}

// Transient reports whether a file of a state directory, which is named relative to it,
// belongs to processes that run, or is the database: a copy of the state has its own.
func Transient(name string) bool {
	return name == runFile || name == takenFile || name == "log.seen" || name == RestoreFile ||
		strings.HasPrefix(name, DatabaseFile) || strings.HasPrefix(filepath.Base(name), ".new-") ||
		strings.HasPrefix(name, ".postern-work-")
}

// Close closes the database.
func (s *State) Close() error { return errors.Join(s.Store.Close(), s.marks.close()) }

// Path returns the path of a file in the state directory.
func (s *State) Path(name string) string { return filepath.Join(s.Dir, name) }

// Ensure writes a file in the state directory unless there is one of that name.
// Where root writes it, it belongs to the directory's owner.
func (s *State) Ensure(name string, data []byte, mode fs.FileMode) error {
	return durable.Ensure(s.Path(name), data, mode, durable.DirectoryOwner)
}

// Replace writes a file in the state directory. Where root writes it, it belongs
// to the directory's owner.
func (s *State) Replace(name string, data []byte, mode fs.FileMode) error {
	return durable.Replace(s.Path(name), data, mode, durable.DirectoryOwner)
}

// databaseURL returns $POSTERN_DATABASE, else what the state's file says, else
// the path of the SQLite file there.
func databaseURL(dir string) (string, error) {
	if url := os.Getenv("POSTERN_DATABASE"); url != "" {
		return url, nil
	}
	url, err := durable.ReadSecret(filepath.Join(dir, urlFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return filepath.Join(dir, DatabaseFile), nil
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(string(url)), nil
}

// UseDatabase makes a state directory whose database is the PostgreSQL one that a
// connection string names. It fails with Conflict where another one was chosen before.
func UseDatabase(dir, url string) error {
	if !store.IsPostgres(url) {
		return postern.Errorf(postern.Invalid, "the database is no connection string of PostgreSQL").
			WithHint("write postgres://user@host/database, or host=… user=… dbname=…; without one the database is a " +
				"SQLite file in the state directory")
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, DatabaseFile)); err == nil {
		return postern.Errorf(postern.Conflict, "%s has a SQLite database already", dir).
			WithHint("choose another state directory")
	}
	path := filepath.Join(dir, urlFile)
	if err := durable.Ensure(path, []byte(url+"\n"), 0o600, durable.DirectoryOwner); err != nil {
		return err
	}
	if have, err := databaseURL(dir); err != nil || have != url {
		return postern.Errorf(postern.Conflict, "the state in %s uses another database", dir).
			WithHint("choose another state directory, or edit %s", path)
	}
	return nil
}

// password is the keyword of one in a connection string of keywords and values.
var password = regexp.MustCompile(`(?i)(^|\s)(ssl)?password\s*=`)

// HasPassword reports whether a database's connection string holds a password.
func HasPassword(database string) bool {
	if !strings.Contains(database, "://") {
		return password.MatchString(database)
	}
	u, err := url.Parse(database)
	if err != nil {
		return strings.Contains(database, "@")
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password") || u.Query().Has("sslpassword")
}
