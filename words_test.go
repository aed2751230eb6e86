package postern_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// privateWords are words that this project once used in a meaning of its own, and the
// words of the field that it uses instead.
var privateWords = []struct{ pattern, instead string }{
	{`askers?`, "actor, or who sends the request"},
	{`ailments?|mend(s|ed|ing)?`, "problem, fix"},
	{`thie(f|ves)|strangers?`, "attacker, or an unauthenticated client"},
	{`turned away`, "refused"},
	{`lets? (somebody |nobody |people )?in|(come|comes|came|coming) in`, "sign in, log in, grant access"},
	{`opens? a door`, "grants access"},
	{`(the|this) house`, "this installation, this server, or the package's name"},
	{`believe(s|d)?|robbed`, "accept, trust, or what was stolen"},
	{`untold|deeds?`, "not notified, or what was done"},
	{`somebody|anybody|whoever|nobody (is|was|has|can|may|else|knows|needs|passes|asks|who)`, "who it is"},
}

// escapes are those in string literals, whose letters would hide a word's beginning.
var escapes = regexp.MustCompile(`\\[nrt]`)

// anyPrivateWord has a group for each of them, so that a text is read once.
var anyPrivateWord = func() *regexp.Regexp {
	var groups []string
	for _, w := range privateWords {
		groups = append(groups, "("+strings.ReplaceAll(w.pattern, "(", "(?:")+")")
	}
	return regexp.MustCompile(`(?i)\b(?:` + strings.Join(groups, "|") + `)\b`)
}()

// wordsIn returns the private words in a text, with what to say instead.
func wordsIn(text string) (found []string) {
	text = escapes.ReplaceAllString(text, " ")
	for _, m := range anyPrivateWord.FindAllStringSubmatch(text, -1) {
		w := privateWords[slices.Index(m[1:], m[0])]
		found = append(found, strconv.Quote(m[0])+": say "+w.instead)
	}
	return found
}

// TestWordsOfTheField reads sources, pages and the manual.
func TestWordsOfTheField(t *testing.T) {
	if ranWithoutRace(t) {
		return
	}
	kinds, others := []string{".go", ".c", ".html", ".js", ".md", ".txt"},
		[]string{"node_modules", "static", "testdata"}
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains(others, d.Name()) || strings.HasPrefix(file, ".") && file != "."):
			return fs.SkipDir
		case d.IsDir() || file == "words_test.go" || !slices.Contains(kinds, path.Ext(file)):
			return nil
		}
		text, err := os.ReadFile(file)
		for _, problem := range wordsIn(string(text)) {
			t.Errorf("%s: %s", file, problem)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPrivateWordsAreFound has one of each.
func TestPrivateWordsAreFound(t *testing.T) {
	for _, text := range []string{
		"who is the Asker", "an ailment", "mended", "a thief", "Strangers", "was turned away", "lets people in",
		"came in", "opens a door",
		"this house", "untold", "whoever", `\tsomebody`, "nobody knows", "believed",
	} {
		if len(wordsIn(text)) != 1 {
			t.Errorf("%q is not found once", text)
		}
	}
	if found := wordsIn("command, recommend, whole, a letter, household, in the first place, " +
		"the user nobody"); found != nil {
		t.Errorf("found in plain words: %v", found)
	}
}
