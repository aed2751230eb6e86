// Command generate writes the pages of docs/reference.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-project/postern/internal/reference"
)

//go:generate go run . ../reference

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	rules, err := reference.Rules()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "caddyfile.md"), reference.Markdown(reference.Caddyfile()),
		0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "rules.md"), reference.Markdown(rules), 0o644)
}
