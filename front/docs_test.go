package front

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheManualsCaddyfilesAreRead adapts each Caddyfile of the recipes.
func TestTheManualsCaddyfilesAreRead(t *testing.T) {
	newRig(t)
	pages, err := filepath.Glob("../docs/recipes/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("no recipes", err)
	}
	read := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "```caddyfile\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			if _, _, err := Adapt([]byte(block), page); err != nil {
				t.Errorf("%s: %v\n%s", page, err, block)
			}
			read++
		}
	}
	if read == 0 {
		t.Error("the recipes have no Caddyfile")
	}
}
