package state_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
)

// TestMadeTwiceAtOnce makes one state from several sides, and each can use it.
func TestMadeTwiceAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	keys := make([]string, 4)
	for i := range keys {
		wg.Go(func() {
			st, err := state.Create(t.Context(), dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			keys[i] = st.Store.Timeline().LogVerifier()
			if err := st.Store.Append(t.Context(), postern.Event{Kind: "test"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key == "" || key != keys[0] {
			t.Errorf("log keys are %q", keys)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".new-") {
			t.Errorf("%s is left over", e.Name())
		}
	}
}
