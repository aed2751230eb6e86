package apache_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/apache"
)

func TestWrite(t *testing.T) {
	parts := t.TempDir()
	var names []string
	for _, name := range []string{"leaf.pem", "chain.pem"} {
		file := filepath.Join(parts, name)
		if err := os.WriteFile(file, []byte("of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, file)
	}
	result := func() *apache.Result {
		return &apache.Result{
			Caddyfile: "tls joined.pem key.pem\n", Bundles: []apache.Bundle{{Name: "joined.pem", Parts: names}},
			Notes: []apache.Note{
				{Severity: apache.Info, Text: "make joined.pem"},
				{Severity: apache.Lost},
				{Severity: apache.Closed},
			},
		}
	}
	r, dir := result(), filepath.Join(t.TempDir(), "new")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	joined := filepath.Join(dir, "joined.pem")
	for file, want := range map[string]string{
		joined: "of leaf.pem\nof chain.pem\n", filepath.Join(dir, apache.CaddyfileName): "tls " + joined +
			" key.pem\n",
	} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	if r.Notes[0].Text != "make "+joined || r.Grave() != 2 {
		t.Errorf("%+v, %d grave", r.Notes, r.Grave())
	}
	if err := result().Write(dir); postern.CodeOf(err) != postern.Conflict || postern.HintOf(err) == "" {
		t.Errorf("it overwrites: %v", err)
	}
	missing := result()
	missing.Bundles[0].Parts = append(missing.Bundles[0].Parts, filepath.Join(parts, "absent.pem"))
	if err := missing.Write(t.TempDir()); postern.CodeOf(err) != postern.NotFound ||
		!strings.Contains(err.Error(), "absent.pem") {
		t.Errorf("a part that is absent: %v", err)
	}
}
