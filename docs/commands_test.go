package docs_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// A command of the program, as its own help tells it.
type helpOf struct {
	commands []string
	flags    []string
}

var (
	helpMu sync.Mutex
	helps  = map[string]*helpOf{}
)

var (
	commandInHelp = regexp.MustCompile(`(?m)^  ([a-z][a-z0-9-]*) +\S`)
	flagInHelp    = regexp.MustCompile(`(?m)^ +(?:(-\w), )?(--[a-z0-9][a-z0-9-]*)`)
)

// help asks the program what a command knows.
func help(t testing.TB, path ...string) *helpOf {
	t.Helper()
	helpMu.Lock()
	defer helpMu.Unlock()
	key := strings.Join(path, " ")
	if h := helps[key]; h != nil {
		return h
	}
	out, err := exec.Command(posterntest.Program(t), append(slices.Clone(path), "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("postern %s --help: %v: %s", key, err, out)
	}
	h := new(helpOf)
	text := string(out)
	if _, list, ok := strings.Cut(text, "Available Commands:\n"); ok {
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range commandInHelp.FindAllStringSubmatch(list, -1) {
			h.commands = append(h.commands, m[1])
		}
	}
	for _, head := range []string{"\nFlags:\n", "\nGlobal Flags:\n"} {
		if _, list, ok := strings.Cut(text, head); ok {
			list, _, _ = strings.Cut(list, "\n\n")
			for _, m := range flagInHelp.FindAllStringSubmatch(list, -1) {
				h.flags = append(h.flags, m[1], m[2])
			}
		}
	}
	helps[key] = h
	return h
}

// hidden reports whether a command exists that is in no list.
func hidden(t testing.TB, path []string) bool {
	out, _ := exec.Command(posterntest.Program(t), append(slices.Clone(path), "--help")...).CombinedOutput()
	return strings.Contains(string(out), "Usage:\n  postern "+strings.Join(path, " ")+" ")
}

// checkCommand returns what is wrong with a postern command line, given as words
// after "postern".
func checkCommand(t testing.TB, words []string) error {
	var path []string
	for len(words) > 0 {
		h := help(t, path...)
		if len(h.commands) == 0 {
			break
		}
		if words[0] == "--state" && len(words) > 2 {
			words = words[2:]
			continue
		}
		if strings.HasPrefix(words[0], "-") || strings.HasPrefix(words[0], "…") {
			break
		}
		if words[0] == "help" {
			return nil
		}
		if !slices.Contains(h.commands, words[0]) && !hidden(t, append(path, words[0])) {
			return fmt.Errorf("there is no command postern %s", strings.Join(append(path, words[0]), " "))
		}
		path, words = append(path, words[0]), words[1:]
	}
	h := help(t, path...)
	for _, w := range words {
		if w == "--" {
			return nil
		}
		name, _, _ := strings.Cut(w, "=")
		if !regexp.MustCompile(`^--?[a-z]`).MatchString(name) || slices.Contains(h.flags, name) {
			continue
		}
		return fmt.Errorf("postern %s has no flag %s", strings.Join(path, " "), name)
	}
	return nil
}

// The ends of a command in a line of shell.
var commandEnds = regexp.MustCompile("\\s(\\||\\|\\||&&|&|;|>|>>|<|#|2>)(\\s|$)|[|;)`>]|\\s#")

var commandBegins = regexp.MustCompile(`(^|[\s($|;&])postern `)

// commandsIn returns the postern commands in a line of shell or of prose.
func commandsIn(line string) [][]string {
	var list [][]string
	for _, at := range commandBegins.FindAllStringIndex(line, -1) {
		rest := regexp.MustCompile(`'[^']*'|"[^"]*"|\$\([^)]*\)`).ReplaceAllString(line[at[1]:], "TEXT")
		if end := commandEnds.FindStringIndex(rest); end != nil {
			rest = rest[:end[0]]
		}
		if words := strings.Fields(rest); len(words) > 0 && regexp.MustCompile(`^[a-z-]`).MatchString(words[0]) {
			list = append(list, words)
		}
	}
	return list
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// TestEveryCommandInTheDocumentationExists holds each postern command of each page
// against the program: the command is there, and so is every flag.
func TestEveryCommandInTheDocumentationExists(t *testing.T) {
	seen := 0
	for _, page := range pages(t) {
		for _, l := range shellLines(t, page) {
			for _, words := range commandsIn(l.text) {
				seen++
				if err := checkCommand(t, words); err != nil {
					t.Errorf("%s:%d: %v", page, l.number, err)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d commands seen", seen)
	}
}

type shellLine struct {
	number int
	text   string
}

// shellLines returns the lines of a page that may hold a command: those of fenced
// and indented blocks, and what stands between backquotes.
func shellLines(t testing.TB, page string) []shellLine {
	var list []shellLine
	fenced := false
	lines := strings.Split(posterntest.Read(t, page), "\n")
	for i := 0; i < len(lines); i++ {
		line, number := lines[i], i+1
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		switch {
		case fenced || strings.HasPrefix(line, "    "):
			for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
				i++
				line = strings.TrimSuffix(line, `\`) + " " + lines[i]
			}
			list = append(list, shellLine{number, line})
		default:
			for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
				list = append(list, shellLine{number, m[1]})
			}
		}
	}
	return list
}

func TestCommandsThatDoNotExistAreFound(t *testing.T) {
	for line, want := range map[string]bool{
		"# postern user add dan --email dan@example.com":        true,
		"postern user add dan --emial dan@example.com":          false,
		"$ sudo postern user frobnicate dan":                    false,
		"postern ca issue --server x | postern nothing --there": false,
		"postern log list --since 1h  # --not a flag":           true,
		"postern otp verify $(postern otp token tuch x)":        false,
		"postern --state /x user list":                          true,
	} {
		var failed error
		for _, words := range commandsIn(line) {
			if err := checkCommand(t, words); err != nil {
				failed = err
			}
		}
		if (failed == nil) != want {
			t.Errorf("%s: %v", line, failed)
		}
	}
}
