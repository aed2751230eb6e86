package cli

import (
	"database/sql"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets stories run the command line as the program "postern".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"postern": func() { os.Exit(Main()) }})
}

// TestStories runs testdata/*.txtar: each is a user story, run with the program in an
// empty directory, its state in $WORK/state. Besides what
// testscript has, a story may say "jsonline FILE N KEY VALUE": line N of FILE,
// from 1, is a JSON object with that value; and "sqlite FILE SQL", which does to
// the database what an attacker who has the file could do.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("POSTERN_STATE", env.WorkDir+"/state")
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"jsonline": jsonLine,
			"sqlite":   sqliteExec,
		},
	})
}

func jsonLine(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 || len(args[1]) != 1 {
		ts.Fatalf("usage: jsonline FILE N KEY VALUE")
	}
	lines := strings.Split(ts.ReadFile(args[0]), "\n")
	n := int(args[1][0] - '1')
	if n < 0 || n >= len(lines) {
		ts.Fatalf("%s has no line %s", args[0], args[1])
	}
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(lines[n]), &object))
	got, _ := json.Marshal(object[args[2]])
	if same := strings.Trim(string(got), `"`) == args[3]; same == neg {
		ts.Fatalf("%s of line %s is %s", args[2], args[1], got)
	}
}

func sqliteExec(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: sqlite FILE SQL")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(args[1])
	ts.Check(err)
}
