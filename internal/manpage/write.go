package manpage

import (
	"os"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
)

// WriteAll writes pages to a directory, each with this source and date, and removes
// the pages there that are no more.
func WriteAll(dir, source string, date time.Time, pages []*Page) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.[1-8]"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return postern.Errorf(postern.Unavailable, "%w", err)
		}
	}
	for _, p := range pages {
		p.Date, p.Source = date, source
		if err := os.WriteFile(filepath.Join(dir, p.FileName()), p.Roff(), 0o644); err != nil {
			return postern.Errorf(postern.Unavailable, "%w", err)
		}
	}
	return nil
}
