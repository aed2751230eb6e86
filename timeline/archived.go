package timeline

import (
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Archived says which entries of a log were moved into files: the first ones, a multiple
// of 256. The tree goes on over them, and all its hashes stay where they are.
type Archived struct {
	Size       int64  // how many
	Removed    int64  // of which so many are kept nowhere else
	Checkpoint string // of a log that has these entries and no other
	Dir        string // where the files were written
}

// Files are the entries that were moved.
type Files interface {
	// Entries calls f with the entries from an index up to before another. A file that is
	// missing or damaged is a [DamagedError].
	Entries(ctx context.Context, from, to int64, f func(Entry) error) error
}

// DamagedError says that a file of archived entries is not as it was written.
type DamagedError struct {
	Index int64 // of the first entry in the file
	File  string
	Err   error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("the archive's file %s: %v", e.File, e.Err) }
func (e *DamagedError) Unwrap() error { return e.Err }

// NotHere is the error about an entry that is in files which are not here.
func (a Archived) NotHere() error {
	return postern.Errorf(postern.NotFound,
		"the first %d entries are in the archive that was written to %s, which is not here",
		a.Size, a.Dir).WithHint("name the directory where the archive is now")
}

// CheckRoot checks that the log that the archive's checkpoint signs begins with the
// entries of another one, c.
func CheckRoot(ctx context.Context, a Archive, v note.Verifier, c Checkpoint) error {
	s, err := a.State(ctx)
	if err != nil {
		return err
	}
	head, err := OpenCheckpoint(s.Checkpoint, v)
	if err != nil {
		return err
	}
	proof, err := ProveGrowth(ctx, a, c.Size, head.Size)
	if err != nil {
		return err
	}
	if c.Size == 0 || c.Size == head.Size && c.Root == head.Root {
		return nil
	}
	if err := tlog.CheckTree(proof, head.Size, head.Root, c.Size, c.Root); err != nil {
		return postern.Errorf(postern.Internal, "the log's first %d entries are not those of that checkpoint", c.Size).
			WithHint("verify the timeline")
	}
	return nil
}
