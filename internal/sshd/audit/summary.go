package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Summary names the findings: the most severe in words, then the IDs of all, each with how
// often it was found; "" for none. It is the same as long as they are, wherever they stand.
func (r *Report) Summary() string {
	if len(r.Findings) == 0 {
		return ""
	}
	times := map[string]int{}
	for _, f := range r.Findings {
		times[f.ID]++
	}
	var ids []string
	for id, n := range times {
		if n > 1 {
			id += fmt.Sprintf(" (%d times)", n)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	worst := slices.MinFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(a.Compare(b), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Title, b.Title))
	})
	return fmt.Sprintf("%s: %s; findings: %s", worst.Severity, worst.Title, strings.Join(ids, ", "))
}
