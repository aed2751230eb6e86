package timeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/mod/sumdb/tlog"
)

// Tiles as C2SP's tlog-tiles has them: 256 hashes wide. Others than this package's own
// [Tile], they are for readers of the log elsewhere.
const (
	publicHeight = 8
	publicWidth  = 1 << publicHeight
	entryTiles   = -1 // the level that stands for the entries themselves
)

// ParseTilePath reads the path of a tile or of a bundle of entries in C2SP's tlog-tiles:
// tile/0/x001/067, tile/entries/000.p/17. A bundle has the level -1.
func ParseTilePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if bundle, entries := strings.CutPrefix(rest, "entries/"); entries {
		rest = "data/" + bundle
	} else if strings.HasPrefix(rest, "data/") {
		ok = false
	}
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	if !ok || err != nil || len(path) > 128 || t.N > math.MaxInt64>>publicHeight || t.L*publicHeight >= 63 {
		return t, postern.Errorf(postern.NotFound, "%.128q is not the path of a tile", path)
	}
	return t, nil
}

// TilePath returns the path that ParseTilePath reads.
func TilePath(t tlog.Tile) string {
	rest := strings.TrimPrefix(t.Path(), "tile/8/")
	if bundle, entries := strings.CutPrefix(rest, "data/"); entries {
		rest = "entries/" + bundle
	}
	return "tile/" + rest
}

// ReadTile returns a tile of the archive, or a bundle of its entries, each behind its
// length in two bytes, big-endian. It fails with [postern.NotFound] if the log does not
// have as many entries.
func ReadTile(ctx context.Context, a Archive, t tlog.Tile) ([]byte, error) {
	s, err := a.State(ctx)
	if err != nil {
		return nil, err
	}
	level := max(t.L, 0) * publicHeight
	if end := t.N<<publicHeight + int64(t.W); end > s.Size>>level || t.N > s.Size {
		return nil, postern.Errorf(postern.NotFound, "the log has no tile %s: it has %d entries", TilePath(t), s.Size)
	}
	if t.L == entryTiles {
		return bundle(ctx, a, t)
	}
	tree, err := LoadTree(s.Size, s.Edge)
	if err != nil {
		return nil, err
	}
	return tlog.ReadTileData(t, hashReader(ctx, a, tree))
}

// errRead ends the reading of entries.
var errRead = errors.New("read enough")

func bundle(ctx context.Context, a Archive, t tlog.Tile) (data []byte, err error) {
	next, end := t.N<<publicHeight, t.N<<publicHeight+int64(t.W)
	err = a.Entries(ctx, next, func(e Entry) error {
		if e.Index != next {
			return postern.Errorf(postern.Internal, "entry %d of the timeline is missing", next).
				WithHint("verify the timeline")
		}
		if data, err = AppendEntry(data, e.Text); err != nil {
			return err
		}
		if next++; next == end {
			return errRead
		}
		return nil
	})
	if errors.Is(err, errRead) {
		return data, nil
	}
	if err == nil {
		err = postern.Errorf(postern.Internal, "entry %d of the timeline is missing", next).
			WithHint("verify the timeline")
	}
	return nil, err
}

// AppendEntry appends an entry to a bundle.
func AppendEntry(bundle []byte, entry string) ([]byte, error) {
	if len(entry) > math.MaxUint16 {
		return nil, postern.Errorf(postern.Internal, "an entry of %d bytes is too long for a bundle", len(entry))
	}
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...), nil
}

// SplitBundle returns the entries of a bundle: at most 256.
func SplitBundle(data []byte) (entries []string, err error) {
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) || len(entries) == publicWidth {
			return nil, fmt.Errorf("not a bundle of entries")
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, string(data[2:end]))
		data = data[end:]
	}
	return entries, nil
}

// ProveGrowth returns the proof that the archive's log had, with its first older entries,
// the tree that its first newer entries contain (RFC 6962, section 2.1.2). It is empty if
// older is 0 or newer.
func ProveGrowth(ctx context.Context, a Archive, older, newer int64) (tlog.TreeProof, error) {
	s, err := a.State(ctx)
	if err != nil {
		return nil, err
	}
	if older < 0 || older > newer || newer > s.Size {
		return nil, postern.Errorf(postern.Invalid, "the log has not grown from %d to %d: it has %d entries",
			older, newer, s.Size)
	}
	if older == 0 || older == newer {
		return nil, nil
	}
	tree, err := LoadTree(s.Size, s.Edge)
	if err != nil {
		return nil, err
	}
	return tlog.ProveTree(newer, older, hashReader(ctx, a, tree))
}
