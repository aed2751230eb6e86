// Package timeline is Postern's log: lines that are only ever appended, a
// Merkle tree over them, and checkpoints of the tree signed with the log's key.
//
// A line is the exact JSON of one event; its leaf is the RFC 6962 hash of those
// bytes (golang.org/x/mod/sumdb/tlog). A checkpoint is a signed note
// (golang.org/x/mod/sumdb/note) in the form of C2SP's tlog-checkpoint: origin,
// size, root. The room holds the mathematics, the questions that can be asked
// and the words of the answers; the rows are the store's.
package timeline

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// TileHeight is the number of tree levels in a tile: a full tile holds
// 1<<TileHeight hashes.
const (
	TileHeight = 6
	tileWidth  = 1 << TileHeight
)

// Tile is a run of hashes of one level of the tree, the unit in which hashes
// are kept. Tile N of level L holds the hashes of the complete subtrees of
// height L*TileHeight whose numbers start at N*64; Data has 32 bytes for each,
// at most 64 of them.
type Tile struct {
	Level int
	N     int64
	Data  []byte
}

// Tree is the right edge of a Merkle tree: enough to append to it and to know
// its root. The zero Tree is empty. It is not safe for concurrent use.
type Tree struct {
	size  int64
	roots []tlog.Hash   // the complete subtrees, largest first: one for each bit of size
	tiles [][]tlog.Hash // the unfinished tile of each level
	full  []Tile        // tiles finished since the last Changed
	dirty uint64        // levels whose unfinished tile has changed since
}

// Size returns the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Clone returns a copy that can be appended to without changing t.
func (t *Tree) Clone() *Tree {
	c := &Tree{size: t.size, roots: slices.Clone(t.roots), tiles: make([][]tlog.Hash, len(t.tiles))}
	for i, tile := range t.tiles {
		c.tiles[i] = slices.Clone(tile)
	}
	return c
}

// Append adds a leaf.
func (t *Tree) Append(leaf tlog.Hash) {
	h := leaf
	t.keep(0, h)
	for level := 0; t.size>>level&1 == 1; level++ {
		left := t.roots[len(t.roots)-1]
		t.roots = t.roots[:len(t.roots)-1]
		h = tlog.NodeHash(left, h)
		if (level+1)%TileHeight == 0 {
			t.keep((level+1)/TileHeight, h)
		}
	}
	t.roots = append(t.roots, h)
	t.size++
}

// keep adds the next hash of a tile level. It runs before size counts the leaf.
func (t *Tree) keep(level int, h tlog.Hash) {
	for len(t.tiles) <= level {
		t.tiles = append(t.tiles, nil)
	}
	t.tiles[level] = append(t.tiles[level], h)
	t.dirty |= 1 << level
	if len(t.tiles[level]) == tileWidth {
		n := t.size >> (TileHeight * (level + 1))
		t.full = append(t.full, Tile{level, n, join(t.tiles[level])})
		t.tiles[level] = nil
		t.dirty &^= 1 << level
	}
}

// Changed returns the tiles that differ from those kept when it was last
// called, unfinished ones included.
func (t *Tree) Changed() []Tile {
	tiles := t.full
	for level, tile := range t.tiles {
		if t.dirty>>level&1 == 1 {
			tiles = append(tiles, Tile{level, t.size >> (TileHeight * (level + 1)), join(tile)})
		}
	}
	t.full, t.dirty = nil, 0
	return tiles
}

// Root returns the tree's hash as RFC 6962 defines it.
func (t *Tree) Root() tlog.Hash {
	if t.size == 0 {
		h, _ := tlog.TreeHash(0, nil) // of nothing: cannot fail
		return h
	}
	h := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.roots[i], h)
	}
	return h
}

// LoadTree returns the right edge of a tree of the given size from its kept
// tiles. It fails if a tile is missing or too short.
func LoadTree(size int64, tile func(level int, n int64) ([]byte, error)) (*Tree, error) {
	t := &Tree{size: size}
	levels := (bits.Len64(uint64(size)) + TileHeight - 1) / TileHeight
	t.tiles = make([][]tlog.Hash, levels)
	for level := range levels {
		count := size >> (TileHeight * level)
		width := int(count % tileWidth)
		if width == 0 {
			continue
		}
		data, err := tile(level, count/tileWidth)
		if err != nil {
			return nil, err
		}
		hashes := split(data)
		if len(hashes) < width {
			return nil, fmt.Errorf("tile %d/%d holds %d hashes, not %d", level, count/tileWidth, len(hashes), width)
		}
		t.tiles[level] = hashes[:width:width]
	}
	for level := levels - 1; level >= 0; level-- {
		rest := t.tiles[level]
		for bit := TileHeight - 1; bit >= 0; bit-- {
			if len(rest)>>bit == 1 {
				t.roots = append(t.roots, fold(rest[:1<<bit]))
				rest = rest[1<<bit:]
			}
		}
	}
	return t, nil
}

// fold returns the root over hashes, whose number is a power of two.
func fold(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(fold(hashes[:half]), fold(hashes[half:]))
}

func join(hashes []tlog.Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}

func split(data []byte) []tlog.Hash {
	hashes := make([]tlog.Hash, 0, min(len(data)/tlog.HashSize, tileWidth))
	for h := range slices.Chunk(data, tlog.HashSize) {
		if len(h) == tlog.HashSize && len(hashes) < tileWidth {
			hashes = append(hashes, tlog.Hash(h))
		}
	}
	return hashes
}
