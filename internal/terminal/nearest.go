package terminal

import (
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// Nearest returns the one of words of which word may be a misspelling,
// or "".
func Nearest(word string, words []string) string {
	best, least := "", max(1, min(len(word)/3, 3))+1
	for _, w := range words {
		if len(word) >= 2 && strings.HasPrefix(w, word) {
			return w
		}
		if d := distance(word, w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance returns how many letters have to be added, removed, changed or swapped
// with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := slices.Min([]int{rows[i-1][j] + 1, rows[i][j-1] + 1, rows[i-1][j-1] + change})
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// Known fails unless a name is among those that there are. The hint is the one that is
// near to it, else list, which says where all are.
func Known(what, name string, known []string, list string) error {
	if slices.Contains(known, name) {
		return nil
	}
	err := postern.Errorf(postern.Invalid, "there is no %s %q", what, name)
	if near := Nearest(name, known); near != "" {
		return err.WithHint("did you mean: %s", near)
	}
	return err.WithHint("%s", list)
}
