package main

import (
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
)

// hints are the commands that help against errors whose packages do not know
// the command line.
var hints = []struct {
	err  error
	hint string
}{
	{state.ErrMissing, "make it with: postern init; or name another directory with --state"},
	{state.ErrRestored, "see postern otp restored --help"},
	{state.ErrServed, "postern run --reload makes it load a changed configuration"},
	{state.ErrNotServed, "start it with: postern run"},
}

// hintOf returns what to do about an error, in commands where there are any.
func hintOf(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return postern.HintOf(err)
}
