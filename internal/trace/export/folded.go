package export

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// foldedName makes a name one part of a folded stack.
var foldedName = strings.NewReplacer(";", ":")

// WriteFolded writes a line for each stack, as flame graphs are made of: the names from
// the outermost function on, separated by semicolons, and the number of events, or the
// nanoseconds that they took.
func (p *Profile) WriteFolded(w io.Writer, byTime bool) error {
	sums := map[string]int64{}
	p.Each(func(path []string, events int64, took time.Duration) {
		names := make([]string, len(path))
		for i, name := range path {
			names[i] = foldedName.Replace(name)
		}
		n := events
		if byTime {
			n = int64(took)
		}
		sums[strings.Join(names, ";")] += n
	})
	b := bufio.NewWriter(w)
	for _, stack := range slices.Sorted(maps.Keys(sums)) {
		if n := sums[stack]; n > 0 {
			_, _ = b.WriteString(stack + " " + strconv.FormatInt(n, 10) + "\n") // Flush tells of errors
		}
	}
	return b.Flush()
}
