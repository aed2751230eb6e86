package store_test

import (
	"testing"

	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestTilesOfABlockShareARow appends in batches of several lengths, and proves entries of
// tiles that are joined and of those that are not yet.
func TestTilesOfABlockShareARow(t *testing.T) {
	db := storetest.OpenConfig(t, store.Config{URL: t.TempDir() + "/postern.db"})
	for _, n := range []int{40, 300, 1, 258} {
		fill(t, db, n)
	}
	if r := verify(t, db); len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
	// 600 entries: two blocks, a tile of the next one, and 24 that fill none.
	if rows := storetest.Rows(t, db)["log_tiles"]; rows != 3 {
		t.Errorf("the tiles are %d rows", rows)
	}
	for _, index := range []int64{0, 63, 64, 255, 256, 511, 512, 575, 576, 599} {
		if _, err := db.Timeline().ProveEvent(t.Context(), index); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
	}
}
