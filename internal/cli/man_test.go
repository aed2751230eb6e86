package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/manual"
)

// TestPagesAreWhole: who reads a manual page finds what each should have, and the
// pages that are committed are those of this command line.
func TestPagesAreWhole(t *testing.T) {
	root := newRoot(&app{})
	pages := manual.Pages(root)
	var names []string
	for _, p := range pages {
		p.Date, p.Source = manual.Released, "Postern"
		names = append(names, p.FileName())
	}
	for _, p := range pages {
		page := p.Roff()
		want := []string{"DESCRIPTION", "SEE ALSO"}
		if p.Section == 1 {
			want = append(want, "OPTIONS", "EXIT STATUS", "FILES", "ENVIRONMENT")
			if !strings.Contains(p.Name, "completion") { // cobra's own, whose text has them
				want = append(want, "EXAMPLES")
			}
		}
		for _, heading := range want {
			if i := bytes.Index(page, []byte(".SH \""+heading+"\"\n")); i < 0 {
				t.Errorf("%s has no %s", p.FileName(), heading)
			}
		}
		for _, s := range p.Sections {
			if s.Heading != "SEE ALSO" {
				continue
			}
			for other := range strings.SplitSeq(s.Text, ",\n") {
				if name := strings.NewReplacer("(", ".", ")", "").Replace(other); strings.HasPrefix(name, "postern") &&
					!slices.Contains(names, name) {
					t.Errorf("%s names %s, which is not there", p.FileName(), other)
				}
			}
		}
		if committed, err := os.ReadFile(filepath.Join("../../man", p.FileName())); err != nil ||
			!bytes.Equal(committed, page) {
			t.Errorf("%s is not current (make generate): %v", p.FileName(), err)
		}
	}
}
