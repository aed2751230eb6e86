// Command bundle makes the portal's one ES module out of its sources and the
// libraries that they stand on, with the libraries' licence notices. It is run
// by go generate, in the portal's directory, and needs npm.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

func main() {
	if err := run("web", "static/portal.js"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, out string) error {
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	npm.Dir, npm.Stderr = dir, os.Stderr
	if err := npm.Run(); err != nil {
		return fmt.Errorf("npm ci in %s: %w", dir, err)
	}
	notices, err := notices(filepath.Join(dir, "node_modules"))
	if err != nil {
		return err
	}
	result := api.Build(api.BuildOptions{
		EntryPoints:       []string{filepath.Join(dir, "src/portal.js")},
		Outfile:           out,
		Bundle:            true,
		Format:            api.FormatESModule,
		Target:            api.ES2022,
		Charset:           api.CharsetUTF8,
		MinifyWhitespace:  true,
		MinifyIdentifiers: true,
		MinifySyntax:      true,
		LegalComments:     api.LegalCommentsNone, // all of them are in the notices
		Banner:            map[string]string{"js": notices},
		LogLevel:          api.LogLevelWarning,
		Write:             true,
	})
	if len(result.Errors) > 0 {
		return fmt.Errorf("%s", result.Errors[0].Text)
	}
	return nil
}

// notices returns the licences of every package, as one comment.
func notices(modules string) (string, error) {
	var files []string
	for _, pattern := range []string{"*/LICENSE*", "@*/*/LICENSE*"} {
		found, err := filepath.Glob(filepath.Join(modules, pattern))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	var b strings.Builder
	b.WriteString("/*! Made by go generate from portal/web: do not edit. It holds these libraries:\n")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		name, err := filepath.Rel(modules, filepath.Dir(file))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n%s\n\n%s\n", name, strings.ReplaceAll(strings.TrimSpace(string(text)), "*/", "* /"))
	}
	b.WriteString("*/")
	return b.String(), nil
}
