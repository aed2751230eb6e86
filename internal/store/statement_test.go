package store

import (
	"strings"
	"testing"
)

// TestParametersInOrderNeedNoNames rewrites statements of many rows, and no others.
func TestParametersInOrderNeedNoNames(t *testing.T) {
	many := valuesOf("INSERT INTO t (a, b)", 64, 2)
	if got, want := unnamed(many), "INSERT INTO t (a, b) VALUES "+strings.Repeat("(?, ?), ", 63)+"(?, ?)"; got != want {
		t.Errorf("%q", got)
	}
	for _, query := range []string{
		"SELECT $1, $2", strings.Replace(many, "$7,", "$8,", 1), strings.Replace(many, "$128", "$1280", 1),
		strings.Replace(many, "$1,", "$1, '$',", 1),
	} {
		if got := unnamed(query); got != query {
			t.Errorf("%q became %q", query, got)
		}
	}
}
