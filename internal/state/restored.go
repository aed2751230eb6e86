package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

// A server stores the length of the timeline in a file beside the database. A database
// whose timeline is shorter was restored from a backup, and does not know which one-time
// passwords were used since.

// seenSize returns the length that the timeline had, 0 if none was stored.
func (s *State) seenSize() (int64, error) {
	b, err := os.ReadFile(s.Path(seenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, postern.Errorf(postern.Invalid, "%s does not hold a number", s.Path(seenFile)).
			WithHint("if the database was restored from a backup, accept that; else write the timeline's length there")
	}
	return n, nil
}

// errRestored is why no code is accepted after a database was restored.
var errRestored = postern.Errorf(postern.Unavailable, "%w: codes used since then would be valid again", ErrRestored).
	WithHint("accept the restored database, which disables what may have been used since")

// CheckRestored returns the timeline's length; Unavailable (ErrRestored) if that
// is less than what was seen of it, as in a database that was restored from a
// backup.
func (s *State) CheckRestored(ctx context.Context) (int64, error) {
	seen, err := s.seenSize()
	if err != nil {
		return 0, err
	}
	size, err := s.Store.Timeline().LogSize(ctx)
	if err != nil {
		return 0, err
	}
	if size < seen {
		return size, errRestored
	}
	return size, nil
}

// MarkSeen stores the length of the timeline.
func (s *State) MarkSeen(size int64) error {
	return s.Replace(seenFile, []byte(strconv.FormatInt(size, 10)+"\n"), 0o600)
}

// CheckpointFile is the file of the state directory with the checkpoint of the
// timeline that was found right last. The next check compares with it.
const CheckpointFile = "log.checkpoint"

// setAside is its name after a restored database, which is not that far, was
// accepted.
const setAside = CheckpointFile + ".before-restore"

// AcceptRestored goes on with a restored database: it forgets how long the timeline
// was, and sets the last checkpoint aside.
func (s *State) AcceptRestored() error {
	err := durable.Rename(s.Path(CheckpointFile), s.Path(setAside))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.Remove(s.Path(seenFile))
}
