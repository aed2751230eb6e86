package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
)

// fileReceiver appends lines to a file, and has them when they are on disk. The file may be
// renamed at any time, as logrotate does: the lines that follow go to a new one.
type fileReceiver struct {
	path string
	size int64 // at which it is rotated, in bytes; 0 for never
	keep int   // how many older files there may be: PATH.1 is the newest
}

// fileTimeout bounds one batch, and lockPause is how often a locked file is tried again.
const (
	fileTimeout = 30 * time.Second
	lockPause   = 10 * time.Millisecond
)

// defaultKeep is how many older files are kept.
const defaultKeep = 10

func openFile(o Options, u *url.URL) (receiver, error) {
	r := fileReceiver{path: u.Path, size: o.Rotate, keep: o.Keep}
	switch {
	case o.Rotate < 0 || o.Keep < 0 || o.Keep > 0 && o.Rotate == 0:
		return nil, postern.Errorf(postern.Invalid, "older files are kept of one that is rotated at a size").
			WithHint("name the size")
	case o.Keep == 0:
		r.keep = defaultKeep
	}
	if cursor, err := filepath.Abs(o.Cursor); err != nil || cursor == filepath.Clean(r.path) {
		return nil, postern.Errorf(postern.Invalid, "%s is the cursor of the export", r.path).
			WithHint("export to another file")
	}
	if info, err := os.Stat(r.path); err == nil && !info.Mode().IsRegular() {
		return nil, postern.Errorf(postern.Invalid, "%s is not a file", r.path)
	}
	return r, nil
}

func (r fileReceiver) send(ctx context.Context, records []record) error {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	text := lines(records)
	for {
		current, err := r.write(ctx, text)
		if err != nil {
			return postern.Errorf(postern.Unavailable, "write the export: %w", err)
		}
		if current {
			return nil
		} // it was renamed, perhaps read to its end before these lines: the new file gets them, too
	}
}

// write appends lines, all or none, and reports whether the file has still that name. They
// are on disk when it returns.
func (r fileReceiver) write(ctx context.Context, text []byte) (current bool, err error) {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := lock(ctx, f); err != nil {
		return false, err
	}
	if !r.names(f) {
		return false, nil
	}
	if err := endLine(f); err != nil {
		return false, err
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if r.size > 0 && info.Size() > 0 && info.Size()+int64(len(text)) > r.size {
		return false, r.rotate()
	}
	if err := appendTo(f, text); err != nil {
		return false, errors.Join(err, f.Truncate(info.Size()))
	}
	return r.names(f), durable.SyncDir(filepath.Dir(r.path))
}

// lock locks a file against other exports that write to it. A process that may only read it can
// keep it locked, so that this waits until ctx ends and no longer.
func lock(ctx context.Context, f *os.File) error {
	for {
		err := system.TryLock(f)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another process keeps %s locked: %w", f.Name(), err)
		case <-time.After(lockPause):
		}
	}
}

func appendTo(f *os.File, text []byte) error {
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

// names reports whether an open file is still the one of that name.
func (r fileReceiver) names(f *os.File) bool {
	named, err := os.Stat(r.path)
	if err != nil {
		return false
	}
	opened, err := f.Stat()
	return err == nil && os.SameFile(named, opened)
}

// endLine ends the last line of a file, which a crash may have left without its end.
func endLine(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
		_, err = f.Write([]byte{'\n'})
	}
	return err
}

// rotate renames the file and those before it, of which the oldest is overwritten.
func (r fileReceiver) rotate() error {
	for n := r.keep; n > 0; n-- {
		if err := os.Rename(r.name(n-1), r.name(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncDir(filepath.Dir(r.path))
}

// name returns the name of a file that was rotated n times.
func (r fileReceiver) name(n int) string {
	if n == 0 {
		return r.path
	}
	return fmt.Sprintf("%s.%d", r.path, n)
}
