package portal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestEveryKindOfEventHasWords reads the kinds where they are declared.
func TestEveryKindOfEventHasWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		v, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Event") || len(v.Values) != 1 {
			return true
		}
		n++
		kind, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil || eventWords(postern.Event{Kind: kind}) == kind {
			t.Errorf("%s has no words: %v", v.Names[0].Name, err)
		}
		return true
	})
	if n < len(eventSentences) {
		t.Errorf("%d kinds were found, and %d have words", n, len(eventSentences))
	}
}
