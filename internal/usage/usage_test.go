package usage

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// newRoot returns a program with the command "list" and the group "user" of "add NAME".
func newRoot() *cobra.Command {
	run := func(*cobra.Command, []string) error { return nil }
	root := &cobra.Command{Use: "prog", SilenceErrors: true, SilenceUsage: true, RunE: run}
	list := &cobra.Command{Use: "list", RunE: run}
	f := list.Flags()
	f.BoolP("json", "j", false, "print JSON")
	f.Bool("columns", false, "print columns")
	f.Int("lines", 1, "so `MANY`")
	f.String("out", "", "the `FILE` to write")
	f.Var(new(terminal.Moment), "since", "`TIME`")
	f.Func("odd", "no even `NUMBER`", func(string) error { return errors.New("it is even") })
	list.MarkFlagsMutuallyExclusive("json", "columns")
	user := &cobra.Command{Use: "user", RunE: run}
	add := &cobra.Command{Use: "add NAME", RunE: run}
	add.Flags().String("email", "", "`ADDRESS`")
	add.Flags().String("group", "", "`GROUP`")
	_, _ = add.MarkFlagRequired("email"), add.MarkFlagRequired("group")
	user.AddCommand(add)
	root.AddCommand(list, user)
	Explain(root)
	return root
}

func TestWrongCommandLinesAreExplained(t *testing.T) {
	for _, c := range []struct{ args, says, hint string }{
		{"lst", `unknown command "lst"`, "did you mean: prog list"},
		{"xyzzy", `unknown command "xyzzy"`, ""},
		{"user ad", `unknown command "ad"`, "did you mean: prog user add"},
		{"user add --email a --group b", "missing NAME", ""},
		{"user add alice bob carol --email a --group b", `unexpected argument "bob"`, ""},
		{"user add alice", "missing --email and --group", ""},
		{"list 1", `unexpected argument "1"`, ""},
		{"list --jsno", "unknown flag --jsno", "did you mean: --json"},
		{"list -x", "unknown flag -x", ""},
		{"list --json=perhaps", `--json: "perhaps" is not true or false`, ""},
		{"list --lines many", `--lines: "many" is not a whole number`, ""},
		{"list --since yesterday", `--since: "yesterday" is not a time`, "for example: 2026-01-02"},
		{"list --odd 2", "--odd: it is even", ""},
		{"list --out", "--out needs a value: FILE", ""},
		{"list --json --columns", "--columns and --json cannot be used together", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			root := newRoot()
			root.SetArgs(strings.Fields(c.args))
			root.SetOut(io.Discard)
			err := Classified(root.Execute())
			if postern.CodeOf(err) != postern.Invalid || Message(err) != c.says ||
				!strings.HasPrefix(postern.HintOf(err), c.hint) {
				t.Errorf("says %v, hint %q", err, postern.HintOf(err))
			}
			if c.hint == "" && postern.HintOf(err) != "" {
				t.Errorf("hint %q", postern.HintOf(err))
			}
		})
	}
}

func TestRightCommandLinesAreAccepted(t *testing.T) {
	for _, args := range []string{
		"", "list", "list --since 7d --lines 3", "user",
		"user add alice --email a --group b",
	} {
		t.Run(args, func(t *testing.T) {
			root := newRoot()
			root.SetArgs(strings.Fields(args))
			if err := root.Execute(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMessagesDoNotNameFunctions(t *testing.T) {
	_, err := os.Open("/no/such/file")
	for _, e := range []error{err, postern.Errorf(postern.NotFound, "read it: %w", err)} {
		if got := Message(e); strings.Contains(got, "open ") ||
			!strings.HasSuffix(got, "/no/such/file: no such file or directory") {
			t.Errorf("got %q", got)
		}
	}
}

func TestArgumentsAreThoseThatTheUseLineNames(t *testing.T) {
	for _, c := range []struct {
		use         string
		least, most int
	}{
		{"list", 0, 0},
		{"add NAME", 1, 1},
		{"disable PERSON KEY", 2, 2},
		{"show [INDEX]", 0, 1},
		{"sign KEY.pub", 1, 1},
		{"export-key --out FILE", 0, 0},
		{"add NAME --domain DOMAIN...", 1, 1},
		{"sign --csr FILE [--client PERSON]", 0, 0},
		{"revoke (SERIAL... | --person PERSON)", 0, 9},
		{"known-hosts [PATTERN...]", 0, 9},
		{"url [URL | none]", 0, 9},
	} {
		t.Run(c.use, func(t *testing.T) {
			check := named(c.use)
			for n := range 10 {
				if got := check(&cobra.Command{}, make([]string, n)) == nil; got != (n >= c.least && n <= c.most) {
					t.Errorf("%d arguments: %v", n, got)
				}
			}
		})
	}
}
