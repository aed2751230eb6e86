package rescue

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"sync"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

// File keeps the set of a host there, without the codes that were used. It is safe for
// concurrent use in one process.
type File struct {
	Path string // mode 0600
	mu   sync.Mutex
}

// read returns the set in the file, the zero Set if there is no file.
func (f *File) read() (s Set, err error) {
	text, err := durable.ReadSecret(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Set{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && !s.valid() {
		err = errors.New("that is no set of codes")
	}
	if err != nil {
		return Set{}, postern.Errorf(postern.Unavailable, "the host's rescue codes: %w", err)
	}
	return s, nil
}

func (f *File) write(s Set) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.Replace(f.Path, text, 0o600)
}

// Keep replaces the set by one from the server, unless it is the same or an older one, as
// of a server that was restored: codes that were used stay used.
func (f *File) Keep(s Set) error {
	if !s.valid() {
		return postern.Errorf(postern.Invalid, "the server sent no set of rescue codes")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, err := f.read(); err == nil && (have.ID == s.ID || s.Made.Before(have.Made)) {
		return nil
	}
	return f.write(s)
}

// ID returns which set the host has, "" for none.
func (f *File) ID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, _ := f.read()
	return s.ID
}

// Use uses a code up and returns its set's ID and how many are left. It is not accepted
// before that is durable, so that it is never accepted twice. It fails with
// [postern.Denied] for what is no code of the set.
func (f *File) Use(typed string) (id string, left int, err error) {
	code, ok := plain(typed)
	if !ok {
		return "", 0, errDenied
	}
	f.mu.Lock() // also bounds the memory that hashing takes
	defer f.mu.Unlock()
	s, err := f.read()
	if err != nil {
		return "", 0, err
	}
	if len(s.Hashes) == 0 {
		return "", 0, errDenied
	}
	i := s.find(code)
	if i < 0 {
		return "", 0, errDenied
	}
	s.Hashes = slices.Delete(s.Hashes, i, i+1)
	return s.ID, len(s.Hashes), f.write(s)
}

var errDenied = postern.Errorf(postern.Denied, "that is no rescue code of this host")
