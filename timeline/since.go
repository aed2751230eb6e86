package timeline

import (
	"bytes"
	"context"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifySince checks a log as [Verify] does, but for the entries that an earlier checkpoint
// signs: of these it checks that the tree still has their hashes. It is for a checkpoint
// of a log that was verified then. What was changed in those entries since, and not in
// their hashes, and in the links that are searched, is found by Verify alone. If the
// hashes are not those that the checkpoint signs, the whole log is verified.
func VerifySince(ctx context.Context, a Archive, v note.Verifier, earlier string) (Report, error) {
	c, err := OpenCheckpoint(earlier, v)
	if err != nil {
		return Verify(ctx, a, v, earlier) // says so
	}
	s, err := a.State(ctx)
	if err != nil {
		return Report{}, err
	}
	if s.Missing && c.Size < s.Archived.Size {
		return Verify(ctx, a, v, earlier)
	}
	tree, err := TreeAt(ctx, a, c.Size)
	if err != nil {
		return Report{}, err
	}
	if tree == nil || tree.Root() != c.Root {
		return Verify(ctx, a, v, earlier)
	}
	return verify(ctx, &verifier{archive: a, tree: *tree, report: Report{From: c.Size}}, v)
}

// TreeAt returns the tree as it was at a size, from the hashes that the archive keeps; nil
// if they are not enough. It does not check them.
func TreeAt(ctx context.Context, a Archive, size int64) (*Tree, error) {
	now, err := a.State(ctx)
	if err != nil || size > now.Size {
		return nil, err
	}
	var edge bytes.Buffer
	rest := now.Edge
	for level := range levels(now.Size) {
		unfinished := edgeWidth(now.Size, level) * tlog.HashSize
		if len(rest) < unfinished {
			return nil, nil
		}
		tile, width := rest[:unfinished], edgeWidth(size, level)*tlog.HashSize
		rest = rest[unfinished:]
		if n := size >> (TileHeight * (level + 1)); n != now.Size>>(TileHeight*(level+1)) && width > 0 {
			if tile, err = a.Tile(ctx, level, n); err != nil {
				return nil, err
			}
		}
		if len(tile) < width {
			return nil, nil
		}
		edge.Write(tile[:width])
	}
	tree, err := LoadTree(size, edge.Bytes())
	if err != nil {
		return nil, nil //nolint:nilerr // they do not fit the size
	}
	return tree, nil
}
