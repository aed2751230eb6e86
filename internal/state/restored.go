package state

import (
	"context"
	"errors"
	"io/fs"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// errRestored is why no code is accepted after a database was restored.
var errRestored = postern.Errorf(postern.Unavailable, "%w: codes used since then would be valid again", ErrRestored).
	WithHint("accept the restored database, which disables what may have been used since")

// CheckRestored compares the database with the furthest position that was seen of it: the
// error is an ErrRestored if the database does not contain that, or nothing says what it
// was. From then on nothing is used up that is valid once, until CheckRestored finds it
// right again or AcceptRestored was called; likewise while the mark cannot be read or
// written.
func (s *State) CheckRestored(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.compare(ctx)
	if err != nil && s.Store.Timeline().LearnKeys(ctx) { // a mark of a key that another process made
		err = s.compare(ctx)
	}
	switch {
	case err == nil && s.refusing.Swap(false):
		s.Store.Refuse(nil)
	case errors.Is(err, ErrRestored) || errors.Is(err, errMark):
		s.refuse(err)
	}
	return err
}

// Refusing reports whether nothing is used up that is valid once, since the state was
// restored or the mark is not known now.
func (s *State) Refusing() bool { return s.refusing.Load() }

func (s *State) refuse(err error) {
	if !s.refusing.Swap(true) {
		s.Store.Refuse(err)
	}
}

// compare does so. The mark is read first: what is in it was committed before.
func (s *State) compare(ctx context.Context) error {
	seen, noMark := s.marks.read()
	if noMark != nil && !errors.Is(noMark, errNoMark) {
		return noMark
	}
	here, behind, err := s.position(ctx)
	switch {
	case err != nil:
		return err
	case behind:
		return errRestored
	case noMark != nil && here.checkpoint.Size > 1 && !s.Store.Shared():
		return noMark
	case noMark != nil: // a database that was just made, or another server's, too
		if err := s.marks.set(here); err != nil {
			return err
		}
		return s.compare(ctx) // with a further mark in another place, if there is one
	case here.epoch == seen.epoch && here.checkpoint.Size >= seen.checkpoint.Size:
		if behind, err = s.forked(ctx, seen); err != nil {
			return err
		}
	default:
		behind = seen.after(here)
	}
	if behind {
		_ = s.Store.SetBehind(ctx) // where it cannot be written, it says so the next time
		return errRestored
	}
	return errors.Join(s.marks.raise(here), s.marks.flush())
}

// forked reports whether the timeline does not begin as the one that was seen.
func (s *State) forked(ctx context.Context, seen mark) (bool, error) {
	if seen.signed == s.compared {
		return false, nil
	}
	same, err := s.Store.Timeline().Contains(ctx, seen.checkpoint)
	if err == nil && same {
		s.compared = seen.signed
	}
	return !same, err
}

func (s *State) position(ctx context.Context) (m mark, behind bool, err error) {
	p, err := s.Store.Position(ctx)
	if err != nil {
		return m, false, err
	}
	s.epoch.Store(p.Epoch)
	m, err = newMark(p.Epoch, p.Checkpoint, s.marks.keys())
	return m, p.Behind, err
}

// committed raises the mark. If that fails, what was just used up is not known outside of
// the database, and nothing more is; while nothing is, the mark stays.
func (s *State) committed(c timeline.Checkpoint, signed string) error {
	if s.refusing.Load() {
		return nil
	}
	err := s.marks.raise(mark{s.epoch.Load(), c, signed})
	if err != nil {
		s.refuse(err)
	}
	return err
}

// CheckpointFile is the file of the state directory with the checkpoint of the
// timeline that was found right last. The next check compares with it.
const CheckpointFile = "log.checkpoint"

// setAside is its name after a restored database, which is not that far, was
// accepted.
const setAside = CheckpointFile + ".before-restore"

// AcceptRestored goes on with a restored database: it begins an epoch, as
// [store.DB.AcceptRestored] says, with a mark of its own, and sets the last checkpoint
// aside. Cut short, it is done again by another call.
func (s *State) AcceptRestored(ctx context.Context, trust bool, event postern.Event) (off store.Disabled, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, err := s.marks.read()
	if err != nil && !errors.Is(err, ErrRestored) {
		return off, err
	}
	here, _, err := s.position(ctx)
	if err != nil {
		return off, err
	}
	if off, err = s.Store.AcceptRestored(ctx, max(seen.epoch, here.epoch)+1, trust, event); err != nil {
		return off, err
	}
	err = durable.Rename(s.Path(CheckpointFile), s.Path(setAside))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return off, err
	}
	if here, _, err = s.position(ctx); err != nil {
		return off, err
	}
	s.compared = here.signed
	if err := s.marks.set(here); err != nil {
		return off, err
	}
	if s.refusing.Swap(false) {
		s.Store.Refuse(nil)
	}
	return off, nil
}
