package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Log is the timeline whose entries are moved.
type Log interface {
	ReadLog(ctx context.Context, f func(ctx context.Context, a timeline.Archive) error) error
	LogVerifier() string
	// Archived returns which entries were moved.
	Archived(ctx context.Context) (timeline.Archived, error)
	// Archivable returns how many entries may be moved, and SizeAt how many happened before.
	Archivable(ctx context.Context) (int64, error)
	SizeAt(ctx context.Context, before time.Time) (int64, error)
	// SignFirst returns a signed checkpoint of the first entries.
	SignFirst(ctx context.Context, size int64) (string, error)
	// KeepArchived records that the entries are in files.
	KeepArchived(ctx context.Context, was, to timeline.Archived, e postern.Event) error
	// RemoveArchived takes some of them out of the database, and reports whether all are out.
	RemoveArchived(ctx context.Context) (done bool, err error)
}

// Size returns how many entries are before what a person wrote: a number of entries, or a
// time that parse reads.
func Size(ctx context.Context, l Log, before string, parse func(string) (time.Time, error)) (int64, error) {
	if n, err := strconv.ParseInt(before, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	at, err := parse(before)
	if err != nil {
		return 0, err
	}
	return l.SizeAt(ctx, at)
}

// Run moves the timeline's first entries into a directory: those before an index, as many
// as whole files take. It writes them, verifies them as they are in the files, and only
// then takes them out of the database. What was interrupted is finished by the next run. It
// returns how many entries are in the archive then. It fails with [postern.Conflict] while
// another run writes to the directory or for the timeline.
func Run(ctx context.Context, l Log, dir string, before int64) (int64, error) {
	d, err := Open(dir)
	if err != nil {
		return 0, err
	}
	unlock, err := d.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	was, err := l.Archived(ctx)
	if err != nil {
		return 0, err
	}
	v, err := timeline.ParseKeys(l.LogVerifier())
	if err != nil {
		return 0, err
	}
	if err := d.check(ctx, l, v, was); err != nil {
		return 0, err
	}
	if err := d.finish(ctx, l, v, was); err != nil {
		return was.Size, err
	}
	if was, err = l.Archived(ctx); err != nil {
		return was.Size, err
	}
	limit, err := l.Archivable(ctx)
	if err != nil {
		return was.Size, err
	}
	size := min(before, limit) / width * width
	if size <= was.Size {
		return was.Size, nil
	}
	if err := d.move(ctx, l, v, was, size); err != nil {
		return was.Size, err
	}
	return size, remove(ctx, l)
}

// move writes, verifies and records entries.
func (d *Dir) move(ctx context.Context, l Log, v note.Verifier, was timeline.Archived, size int64) error {
	for n := was.Size / width; n < size/width; n += pages {
		if err := d.entries(ctx, l, n, min(n+pages, size/width)); err != nil {
			return err
		}
	}
	if err := d.tree(ctx, l, was.Size, size); err != nil {
		return err
	}
	signed, err := l.SignFirst(ctx, size)
	if err != nil {
		return err
	}
	if err := d.verify(ctx, l, v, was.Size, signed); err != nil {
		return err
	}
	if err := d.write(filepath.Join(d.path, checkpoint), []byte(signed)); err != nil {
		return err
	}
	return l.KeepArchived(ctx, was, timeline.Archived{
		Size: size, Removed: was.Removed, Checkpoint: signed,
		Dir: d.path,
	},
		postern.Event{Kind: postern.EventLogArchived, Object: d.path, Count: size})
}

// finish takes out of the database what an earlier run has not, if the files still have it.
func (d *Dir) finish(ctx context.Context, l Log, v note.Verifier, was timeline.Archived) error {
	if was.Removed == was.Size {
		return nil
	}
	if err := d.verify(ctx, l, v, was.Removed, was.Checkpoint); err != nil {
		return err
	}
	return remove(ctx, l)
}

func remove(ctx context.Context, l Log) error {
	for {
		done, err := l.RemoveArchived(ctx)
		if err != nil || done {
			return err
		}
	}
}

// lock makes the directory and locks it for one process.
func (d *Dir) lock() (func(), error) {
	if err := durable.MakeDir(d.path, 0o700); err != nil {
		return nil, postern.Errorf(postern.Unavailable, "make the archive's directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(d.path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "lock the archive: %w", err)
	}
	if err := system.TryLock(f); err != nil {
		f.Close()
		return nil, postern.Errorf(postern.Conflict, "another process writes to the archive in %s", d.path)
	}
	return func() { f.Close() }, nil
}

// check checks that the directory has what was moved before, and nothing of another log.
func (d *Dir) check(ctx context.Context, l Log, v note.Verifier, was timeline.Archived) error {
	signed, err := d.Checkpoint()
	if err != nil {
		return err
	}
	if signed == "" && was.Size == 0 {
		return nil
	}
	if signed == "" {
		return d.copyFrom(ctx, l, v, was)
	}
	c, err := timeline.OpenCheckpoint(signed, v)
	if err != nil {
		return postern.Errorf(postern.Conflict, "%s has the archive of another timeline: %w", d.path, err)
	}
	err = l.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) error {
		return timeline.CheckRoot(ctx, a, v, c)
	})
	if err == nil && c.Size < was.Size {
		err = fmt.Errorf("it has %d entries of %d", c.Size, was.Size)
	}
	if err != nil {
		return postern.Errorf(postern.Conflict, "%s has not the archive of this timeline: %w", d.path, err).
			WithHint("name the directory where the archive is now; where the database was restored and the archive " +
				"has entries that were lost, name a new one: the others are copied")
	}
	return nil
}

// copyFrom begins the archive with the entries that were moved before, from the directory that
// they were written to, if they are followed there by those of another history: the database
// was restored since. Otherwise that directory is the one to go on in.
func (d *Dir) copyFrom(ctx context.Context, l Log, v note.Verifier, was timeline.Archived) error {
	from, err := Open(was.Dir)
	if err != nil {
		return err
	}
	if !from.Here() || from.check(ctx, l, v, was) == nil {
		return postern.Errorf(postern.Invalid,
			"%s has no archive, and the first %d entries are in one that was written to %s",
			d.path, was.Size, was.Dir).
			WithHint("go on in the directory where the archive is now")
	}
	for n := int64(0); n < was.Size/width; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, t := range []struct {
			level  int
			suffix string
			most   int64
		}{{-1, compressed, maxBundle}, {0, "", width * tlog.HashSize}} {
			tile := tlog.Tile{H: height, L: t.level, N: n, W: width}
			data, err := from.read(tile, t.suffix, t.most)
			if err != nil {
				return err
			}
			if err := d.write(d.name(tile, t.suffix), data); err != nil {
				return err
			}
		}
	}
	if err := d.tree(ctx, l, 0, was.Size); err != nil {
		return err
	}
	if err := d.verify(ctx, l, v, 0, was.Checkpoint); err != nil {
		return err
	}
	return d.write(filepath.Join(d.path, checkpoint), []byte(was.Checkpoint))
}

// pages is how many files of entries are written from one read of the database.
const pages = 16

// errRead ends the reading of entries.
var errRead = errors.New("read enough")

// entries writes the entries of the files from one on up to before another, and their hashes.
func (d *Dir) entries(ctx context.Context, l Log, from, to int64) error {
	return l.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) error {
		var bundle, hashes []byte
		next := from * width
		err := a.Entries(ctx, next, func(e timeline.Entry) (err error) {
			if e.Index != next {
				return postern.Errorf(postern.Internal, "entry %d of the timeline is missing", next).
					WithHint("verify the timeline")
			}
			if bundle, err = timeline.AppendEntry(bundle, e.Text); err != nil {
				return err
			}
			hash := tlog.RecordHash([]byte(e.Text))
			hashes = append(hashes, hash[:]...)
			if next++; next%width > 0 {
				return nil
			}
			t := tlog.Tile{H: height, L: -1, N: next/width - 1, W: width}
			if err := d.write(d.name(t, compressed), d.to.EncodeAll(bundle, nil)); err != nil {
				return err
			}
			t.L = 0
			if err := d.write(d.name(t, ""), hashes); err != nil {
				return err
			}
			if bundle, hashes = bundle[:0], hashes[:0]; next == to*width {
				return errRead
			}
			return nil
		})
		if errors.Is(err, errRead) {
			return nil
		}
		return err
	})
}

// tree writes the hashes above the leaves, for a log of that size.
func (d *Dir) tree(ctx context.Context, l Log, was, size int64) error {
	return l.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) error {
		for level := 1; size>>(height*level) > 0; level++ {
			count := size >> (height * level)
			for n := was >> (height * (level + 1)); n*width < count; n++ {
				t := tlog.Tile{H: height, L: level, N: n, W: int(min(width, count-n*width))}
				data, err := timeline.ReadTile(ctx, a, t)
				if err != nil {
					return err
				}
				if err := d.write(d.name(t, ""), data); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// verify checks that the files hold what a checkpoint signs, behind the entries that were
// archived before.
func (d *Dir) verify(ctx context.Context, l Log, v note.Verifier, was int64, signed string) error {
	c, err := timeline.OpenCheckpoint(signed, v)
	if err != nil {
		return err
	}
	var tree *timeline.Tree
	if err := l.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) (err error) {
		tree, err = timeline.TreeAt(ctx, a, was)
		return err
	}); err != nil {
		return err
	}
	if tree == nil {
		return postern.Errorf(postern.Internal, "the timeline's tree is not complete").WithHint("verify the timeline")
	}
	for n := was / width; n < c.Size/width; n++ {
		if err := d.add(tree, n); err != nil {
			return err
		}
	}
	if tree.Root() != c.Root {
		return postern.Errorf(postern.Internal, "the entries in the files are not those that were signed").
			WithHint("verify the timeline; nothing was taken out of the database")
	}
	return nil
}

// add appends the entries of a file to the tree.
func (d *Dir) add(tree *timeline.Tree, n int64) error {
	entries, err := d.bundle(n)
	if err != nil {
		return err
	}
	for _, text := range entries {
		tree.Append(tlog.RecordHash([]byte(text)))
	}
	tree.Finished() // which are in the database
	return nil
}
