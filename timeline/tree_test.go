package timeline

import (
	"fmt"
	"reflect"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// TestTreeIsRFC6962 compares with tlog's own tree at every size.
func TestTreeIsRFC6962(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	var tree Tree
	tiles := map[[2]int64][]byte{}
	for n := range int64(4200) { // past the second level's first tile
		want, err := tlog.TreeHash(n, reader)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Root() != want || tree.Size() != n {
			t.Fatalf("the root at %d leaves is not RFC 6962's", n)
		}
		data := fmt.Appendf(nil, "leaf %d", n)
		more, err := tlog.StoredHashes(n, data, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		if n%3 == 0 { // goes on from a copy or from what was kept, as a store does
			loaded, err := LoadTree(n, tree.Edge())
			if err != nil {
				t.Fatal(err)
			}
			tree = *loaded.Clone()
		}
		tree.Append(tlog.RecordHash(data))
		for _, tile := range tree.Finished() {
			tiles[[2]int64{int64(tile.Level), tile.N}] = tile.Data
		}
	}
	if len(tiles) != 4200/64+1 {
		t.Errorf("%d tiles are finished", len(tiles))
	}
	for at, data := range tiles {
		want := tlog.Tile{H: TileHeight, L: int(at[0]), N: at[1], W: 1 << TileHeight}
		if got, err := tlog.ReadTileData(want, reader); err != nil || !reflect.DeepEqual(got, data) {
			t.Errorf("tile %v is not tlog's: %v", at, err)
		}
	}
}

func TestCloneIsApart(t *testing.T) {
	var tree Tree
	for i := range 100 {
		tree.Append(tlog.RecordHash([]byte{byte(i)}))
	}
	root, edge := tree.Root(), tree.Edge()
	c := tree.Clone()
	for i := range 100 {
		c.Append(tlog.RecordHash([]byte{byte(i)}))
	}
	if tree.Root() != root || !reflect.DeepEqual(tree.Edge(), edge) || c.Size() != 200 {
		t.Error("appending to a copy changes the tree")
	}
}

func FuzzLoadTree(f *testing.F) {
	var tree Tree
	for range 300 {
		tree.Append(tlog.RecordHash(nil))
	}
	f.Add(int64(300), tree.Edge())
	f.Add(int64(0), []byte(nil))
	f.Add(int64(1)<<62, make([]byte, 32))
	f.Fuzz(func(t *testing.T, size int64, edge []byte) {
		if size < 0 {
			return
		}
		tree, err := LoadTree(size, edge)
		if err != nil {
			return
		}
		if !reflect.DeepEqual(append([]byte{}, tree.Edge()...), append([]byte{}, edge...)) {
			t.Error("the edge does not come back")
		}
		tree.Append(tree.Root())
	})
}
