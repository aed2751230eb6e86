package front

import "github.com/postern-project/postern/gate"

// ambiguousPath is the reason of a refusal that no guard decided: servers could read the
// path in different ways.
const ambiguousPath = "ambiguous-path"

// Decisions returns how many requests guards have let pass and refused since [Use], by
// reason: "ok", a [gate.Reason], or "ambiguous-path".
func Decisions() map[string]int64 {
	l := current()
	n := map[string]int64{ambiguousPath: l.ambiguous.Load()}
	for i := range l.decisions {
		n[gate.Reason(i).String()] = l.decisions[i].Load()
	}
	return n
}
