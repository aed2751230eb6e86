package report

import (
	"bytes"
	"io"
	"testing"

	"github.com/postern-project/postern/internal/trace/export"
)

// FuzzRecordings makes pages and exports of damaged recordings: none may panic or hang.
func FuzzRecordings(f *testing.F) {
	f.Add(recorded(f, stacked()...))
	f.Add(recorded(f, hostile()...))
	f.Fuzz(func(t *testing.T, recording []byte) {
		var page bytes.Buffer
		if _, _, err := (Report{}).Write(bytes.NewReader(recording), &page); err == nil && page.Len() == 0 {
			t.Error("no page and no error")
		}
		for _, format := range []string{export.FormatPerfetto, export.FormatFolded} {
			_, _, _ = export.Recording{Format: format}.Write(t.Context(), bytes.NewReader(recording), io.Discard)
		}
	})
}
