package apache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

// CaddyfileName is the name of the file that Write writes the configuration to.
const CaddyfileName = "Caddyfile"

// Write writes the Caddyfile and the certificates with their chains into a
// directory, and puts their paths into the Caddyfile and the notes. It overwrites
// nothing (Conflict), and joins certificates alone, never keys.
func (r *Result) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := r.Caddyfile
	for _, b := range r.Bundles {
		name, err := filepath.Abs(filepath.Join(dir, filepath.Base(b.Name)))
		if err != nil {
			return err
		}
		if err := b.write(name); err != nil {
			return err
		}
		text = strings.ReplaceAll(text, b.Name, name)
		for i := range r.Notes {
			r.Notes[i].Text = strings.ReplaceAll(r.Notes[i].Text, b.Name, name)
		}
	}
	return create(filepath.Join(dir, CaddyfileName), []byte(text))
}

// write joins the certificates in a file.
func (b Bundle) write(name string) error {
	var all []byte
	for _, part := range b.Parts {
		text, err := os.ReadFile(part)
		if err != nil {
			return postern.Errorf(postern.NotFound, "a certificate that the configuration names: %w", err)
		}
		all = append(append(all, text...), '\n')
	}
	return create(name, all)
}

func create(name string, data []byte) error {
	err := durable.Create(name, data, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return postern.Errorf(postern.Conflict, "%s exists already", name).
			WithHint("name another directory, or move the file away")
	}
	return err
}

// Grave counts the notes on lines that could not be carried over as they are.
func (r *Result) Grave() (n int) {
	for _, note := range r.Notes {
		if note.Severity.Grave() {
			n++
		}
	}
	return n
}
