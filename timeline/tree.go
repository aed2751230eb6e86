// Package timeline is Postern's log: entries that are only ever appended, a
// Merkle tree over them, and checkpoints of the tree signed with the log's key.
//
// An entry is the exact JSON of one event; its leaf is the RFC 6962 hash of those
// bytes (golang.org/x/mod/sumdb/tlog). A checkpoint is a signed note
// (golang.org/x/mod/sumdb/note) in the form of C2SP's tlog-checkpoint: origin,
// size, root. The package computes trees and proofs, verifies a log, filters and
// joins events and writes them as sentences; package store keeps the rows.
//
// To check one entry use [Proof.Check] with the log's public key; to check a log use
// [Verify], with a checkpoint that was kept elsewhere: without one, a holder of the
// log's key can have written it anew. [Sentence] is for people; programs read the
// event.
//
// Who implements [Archive] returns every entry as the exact text that was hashed, all
// of them and in order, as they are at one moment. Who implements [Appender] gives
// events their index, hashes them and signs the checkpoint in one step.
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

// Tile is a run of 64 hashes of one level of the tree, the unit in which hashes
// are kept: tile N of level L holds those of the complete subtrees of height
// L*TileHeight from number N*64 on, 32 bytes each. The hashes that do not fill a
// tile yet are the tree's edge.
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
	edge  [][]tlog.Hash // the unfinished tile of each level
	full  []Tile        // tiles finished since the last Finished
}

// Size returns the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Clone returns a copy that can be appended to without changing t.
func (t *Tree) Clone() *Tree {
	c := &Tree{size: t.size, roots: slices.Clone(t.roots), edge: make([][]tlog.Hash, len(t.edge))}
	for i, tile := range t.edge {
		c.edge[i] = slices.Clone(tile)
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

// keep adds the next hash of a tile level. It runs before size includes the leaf.
func (t *Tree) keep(level int, h tlog.Hash) {
	if level == len(t.edge) {
		t.edge = append(t.edge, nil)
	}
	t.edge[level] = append(t.edge[level], h)
	if len(t.edge[level]) == tileWidth {
		t.full = append(t.full, Tile{level, t.size >> (TileHeight * (level + 1)), join(t.edge[level])})
		t.edge[level] = nil
	}
}

// Finished returns the tiles that were finished since it was last called. They
// never change again.
func (t *Tree) Finished() []Tile {
	tiles := t.full
	t.full = nil
	return tiles
}

// Edge returns the hashes that fill no tile yet, level by level from the
// leaves.
func (t *Tree) Edge() []byte {
	var data []byte
	for _, tile := range t.edge {
		data = append(data, join(tile)...)
	}
	return data
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

// LoadTree returns the tree of a size and edge, to be appended to.
func LoadTree(size int64, edge []byte) (*Tree, error) {
	t := &Tree{size: size}
	for level := range levels(size) {
		width := edgeWidth(size, level)
		if len(edge) < width*tlog.HashSize {
			return nil, fmt.Errorf("the edge of a tree of %d leaves is too short", size)
		}
		t.edge = append(t.edge, split(edge[:width*tlog.HashSize]))
		edge = edge[width*tlog.HashSize:]
	}
	if len(edge) > 0 {
		return nil, fmt.Errorf("the edge of a tree of %d leaves is too long", size)
	}
	for _, rest := range slices.Backward(t.edge) {
		for bit := TileHeight - 1; bit >= 0; bit-- {
			if len(rest)>>bit == 1 {
				t.roots = append(t.roots, fold(rest[:1<<bit]))
				rest = rest[1<<bit:]
			}
		}
	}
	return t, nil
}

// levels returns how many tile levels a tree has.
func levels(size int64) int {
	return (bits.Len64(uint64(size)) + TileHeight - 1) / TileHeight
}

// edgeWidth returns how many hashes of a level fill no tile yet.
func edgeWidth(size int64, level int) int {
	return int(size >> (TileHeight * level) % tileWidth)
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
	hashes := make([]tlog.Hash, 0, tileWidth)
	for len(data) >= tlog.HashSize && len(hashes) < tileWidth {
		hashes = append(hashes, tlog.Hash(data[:tlog.HashSize]))
		data = data[tlog.HashSize:]
	}
	return hashes
}
