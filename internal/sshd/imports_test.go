package sshd_test

import (
	"go/build"
	"os"
	"path"
	"slices"
	"testing"
)

const here = "github.com/postern-project/postern/internal/sshd"

// may is what each package below this one imports of the others.
var may = map[string][]string{
	"attest": nil,
	"audit":  {"hostconf", "process"}, "hostconf": nil, "process": {"hostconf"}, "setup": {"hostconf", "process"},
	"remote": nil, "rescue": nil,
	"shell": {"hostconf", "process"}, "sign": nil, "socket": {"process"}, "sshlog": {"process"},
}

func TestPartsDoNotKnowEachOther(t *testing.T) {
	dirs, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		seen++
		pkg, err := build.ImportDir(d.Name(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range pkg.Imports {
			if path.Dir(imp) == here && !slices.Contains(may[d.Name()], path.Base(imp)) {
				t.Errorf("%s imports %s", d.Name(), path.Base(imp))
			}
		}
	}
	if seen != len(may) {
		t.Errorf("%d packages, not %d", seen, len(may))
	}
}
