package apache_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-project/postern/internal/apache"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden converts each configuration under testdata and compares the
// Caddyfile and the notes with what was looked at and found right.
func TestGolden(t *testing.T) {
	confs, err := filepath.Glob("testdata/*/site.conf")
	if err != nil || len(confs) == 0 {
		t.Fatal("no configurations", err)
	}
	for _, conf := range confs {
		dir := filepath.Dir(conf)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			r, err := apache.Convert(apache.Config{FS: os.DirFS(dir)}, "/site.conf")
			if err != nil {
				t.Fatal(err)
			}
			var notes strings.Builder
			for _, n := range r.Notes {
				notes.WriteString(n.String() + "\n")
			}
			golden(t, filepath.Join(dir, "Caddyfile"), r.Caddyfile)
			golden(t, filepath.Join(dir, "notes"), notes.String())
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

// FuzzConvert feeds configurations that may be anything: each is converted or
// refused with an error, and every guard of what is converted is still one.
func FuzzConvert(f *testing.F) {
	confs, err := filepath.Glob("testdata/*/site.conf")
	if err != nil || len(confs) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, conf := range confs {
		text, err := os.ReadFile(conf)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("Include site.conf\n")
	f.Add("Define a ${a}${a}\n<Location ${a}>\nRequire all denied\n</Location>\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := apache.Convert(apache.Config{FS: fstest.MapFS{"site.conf": {Data: []byte(text)}}}, "/site.conf")
		if err != nil {
			return
		}
		if strings.Count(r.Caddyfile, "{") != strings.Count(r.Caddyfile, "}") && !strings.ContainsAny(text, "{}`") {
			t.Errorf("unbalanced:\n%s", r.Caddyfile)
		}
	})
}

func TestWhatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"an open section":          "<Location /a>\n",
		"a section closed twice":   "</Location>\n",
		"sections that cross":      "<Location /a>\n<Files b>\n</Location>\n</Files>\n",
		"an include of itself":     "Include site.conf\n",
		"a missing include":        "Include other.conf\n",
		"a section with no >":      "<Location /a\n",
		"sections without end":     strings.Repeat("<If a>\n", 100),
		"a line that never ends":   strings.Repeat("a", 1<<17) + "\n",
		"a define that doubles up": "Define a aaaaaaaaaaaaaaaa\n" + strings.Repeat("Define a ${a}${a}${a}${a}\n", 20),
	} {
		if _, err := apache.Convert(apache.Config{FS: fstest.MapFS{"site.conf": {Data: []byte(text)}}},
			"/site.conf"); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}
