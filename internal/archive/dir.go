// Package archive keeps the first entries of a timeline in files. Their directory is a log
// of its own in the form of C2SP's tlog-tiles: checkpoint, tile/0/000 with hashes and
// tile/entries/000.zst with entries, compressed as in RFC 8878.
package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height     = 8 // of tiles
	width      = 1 << height
	maxBundle  = width * (2 + 1<<16) // bytes of entries
	checkpoint = "checkpoint"
	compressed = ".zst"
)

// Dir is a directory with archived entries. It is safe for concurrent use, but for writing.
type Dir struct {
	path string
	from *zstd.Decoder
	to   *zstd.Encoder
}

var _ timeline.Files = (*Dir)(nil)

// Open opens a directory, which need not be there.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "the archive's directory: %w", err)
	}
	from, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBundle))
	if err != nil {
		return nil, err
	}
	to, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	return &Dir{path, from, to}, err
}

// Here reports whether there is an archive in the directory.
func (d *Dir) Here() bool {
	info, err := os.Stat(filepath.Join(d.path, checkpoint))
	return err == nil && info.Size() > 0
}

// Checkpoint returns the checkpoint of what is in the archive, "" if there is none.
func (d *Dir) Checkpoint() (string, error) {
	text, err := os.ReadFile(filepath.Join(d.path, checkpoint))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", postern.Errorf(postern.Unavailable, "read the archive: %w", err)
	}
	return string(text), nil
}

// Entries implements [timeline.Files].
func (d *Dir) Entries(ctx context.Context, from, to int64, f func(timeline.Entry) error) error {
	for n := from / width; n*width < to; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := d.bundle(n)
		if err != nil {
			return err
		}
		for i, text := range entries {
			index := n*width + int64(i)
			if index < from || index >= to {
				continue
			}
			e, err := timeline.Decode([]byte(text))
			if err != nil {
				e = postern.Event{} // Verify says what is wrong
			}
			e.Index = index
			if err := f(timeline.Entry{Text: text, Event: e}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tile returns the hashes of 256 entries.
func (d *Dir) tile(n int64) ([]byte, error) {
	t := tlog.Tile{H: height, N: n, W: width}
	data, err := d.read(t, "", width*tlog.HashSize)
	if err == nil && len(data) != width*tlog.HashSize {
		err = d.damaged(t, "", errors.New("of another length"))
	}
	return data, err
}

// bundle returns 256 entries.
func (d *Dir) bundle(n int64) ([]string, error) {
	t := tlog.Tile{H: height, L: -1, N: n, W: width}
	data, err := d.read(t, compressed, maxBundle)
	if err != nil {
		return nil, err
	}
	if data, err = d.from.DecodeAll(data, nil); err != nil {
		return nil, d.damaged(t, compressed, err)
	}
	entries, err := timeline.SplitBundle(data)
	if err == nil && len(entries) != width {
		err = fmt.Errorf("%d entries, not %d", len(entries), width)
	}
	if err != nil {
		return nil, d.damaged(t, compressed, err)
	}
	return entries, d.compare(n, entries)
}

// compare compares entries with their hashes in the file beside them.
func (d *Dir) compare(n int64, entries []string) error {
	kept, err := d.tile(n)
	if err != nil {
		return err
	}
	for i, text := range entries {
		hash := tlog.RecordHash([]byte(text))
		if !bytes.Equal(hash[:], kept[i*tlog.HashSize:][:tlog.HashSize]) {
			err := fmt.Errorf("not the hash of entry %d", n*width+int64(i))
			return d.damaged(tlog.Tile{H: height, N: n, W: width}, "", err)
		}
	}
	return nil
}

func (d *Dir) read(t tlog.Tile, suffix string, most int64) ([]byte, error) {
	name := d.name(t, suffix)
	info, err := os.Stat(name)
	if err == nil && info.Size() > most {
		err = errors.New("too long")
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is missing")
	}
	if err != nil {
		return nil, d.damaged(t, suffix, err)
	}
	return data, nil
}

func (d *Dir) name(t tlog.Tile, suffix string) string {
	return filepath.Join(d.path, filepath.FromSlash(timeline.TilePath(t)+suffix))
}

func (d *Dir) damaged(t tlog.Tile, suffix string, err error) error {
	return &timeline.DamagedError{Index: t.N * width, File: d.name(t, suffix), Err: err}
}

// write writes a file, unless it is there with the same content. Either way it is on disk then.
func (d *Dir) write(name string, data []byte) error {
	err := durable.MakeDir(filepath.Dir(name), 0o700)
	if have, unread := os.ReadFile(name); err == nil && unread == nil && bytes.Equal(have, data) {
		err = durable.SyncDir(filepath.Dir(name)) // who wrote it may have ended before
	} else if err == nil {
		err = durable.Replace(name, data, 0o600)
	}
	if err != nil {
		return postern.Errorf(postern.Unavailable, "write the archive: %w", err)
	}
	return nil
}

// Store is what keeps the rest of the timeline.
type Store interface {
	ArchivedIn(ctx context.Context) (dir string, err error) // "" if nothing was moved
	UseArchive(files timeline.Files)
}

// Use has the timeline read with the archive in a directory; "" is where it was written, if
// it is still there. It fails with [postern.NotFound] if the directory has none.
func Use(ctx context.Context, s Store, dir string) error {
	written, err := s.ArchivedIn(ctx)
	if err != nil || written == "" {
		return err
	}
	d, err := Open(cmp.Or(dir, written))
	if err != nil {
		return err
	}
	switch {
	case d.Here():
		s.UseArchive(d)
	case dir != "":
		return postern.Errorf(postern.NotFound, "there is no archive in %s", dir)
	}
	return nil
}
