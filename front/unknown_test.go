package front

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
)

// TestNamesThatNobodyHasAreWarnedOf loads a configuration with such names and
// reads the log.
func TestNamesThatNobodyHasAreWarnedOf(t *testing.T) {
	h := newRig(t, func(r *Runtime) {
		r.People = func(context.Context) ([]postern.Person, error) {
			return []postern.Person{{
				Name: "dan", Email: "dan@example.com", Groups: []string{"audit"},
				Status: postern.PersonActive,
			}}, nil
		}
	})
	h.log = "file " + filepath.Join(h.dir, "log")
	h.serve(t, "localhost:HTTPS {\n\trequire /a* {\n\t\tperson dna dan\n\t\tgroup audti audit\n\t}\n\trespond ok\n}\n")
	text, err := os.ReadFile(filepath.Join(h.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"person":"dna"`, `"group":"audti"`, `"require":"/a*"`} {
		if strings.Count(string(text), want) == 0 {
			t.Errorf("no %s in the log: %s", want, text)
		}
	}
	for _, wrong := range []string{`"person":"dan"`, `"group":"audit"`} {
		if strings.Contains(string(text), wrong) {
			t.Errorf("%s in the log", wrong)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	people := []postern.Person{
		{Name: "dan", Email: "dan@example.com", Groups: []string{"audit"}, Status: postern.PersonActive},
		{Name: "eve", Email: "eve@example.com", Groups: []string{"staff"}, Status: postern.PersonSuspended},
		{Name: "old", Groups: []string{"past"}, Status: postern.PersonRemoved},
	}
	for name, c := range map[string]struct {
		require Require
		want    []unknown
	}{
		"all known": {Require{Way: gate.Way{Persons: []string{
			"dan", "eve@example.com",
			"DAN@example.com",
		}, Groups: []string{"audit", "staff"}}}, nil},
		"misspelt": {
			Require{Way: gate.Way{Persons: []string{"dna"}, Groups: []string{"audti"}}},
			[]unknown{{"person", "dna"}, {"group", "audti"}},
		},
		"removed": {
			Require{Way: gate.Way{Persons: []string{"old"}, Groups: []string{"past"}}},
			[]unknown{{"person", "old"}, {"group", "past"}},
		},
		"an address": {
			Require{Way: gate.Way{Persons: []string{"x@example.com"}}},
			[]unknown{{"person", "x@example.com"}},
		},
		"an address, another CA": {Require{
			Way:   gate.Way{Persons: []string{"x@example.com"}},
			Trust: []string{"zoo.pem"},
		}, nil},
		"a name, another CA": {
			Require{Way: gate.Way{Persons: []string{"x"}}, Trust: []string{"zoo.pem"}},
			[]unknown{{"person", "x"}},
		},
		"an address, our CA only": {Require{
			Way:   gate.Way{Persons: []string{"x@example.com"}},
			Trust: []string{ownWord},
		}, []unknown{{"person", "x@example.com"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.require.unknown(people); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
