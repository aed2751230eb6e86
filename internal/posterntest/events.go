package posterntest

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// EventKinds reads the kinds of events where they are declared, by the name of the
// constant.
func EventKinds(t testing.TB) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(ModuleDir(t), "event.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		v, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Event") || len(v.Values) != 1 {
			return true
		}
		kind, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Errorf("%s: %v", v.Names[0].Name, err)
		}
		kinds[v.Names[0].Name] = kind
		return true
	})
	return kinds
}

// Recorder takes events, as a timeline does, and hands them on. It blocks while it is
// full.
type Recorder chan postern.Event

// Append hands events on, in order.
func (r Recorder) Append(_ context.Context, events ...postern.Event) error {
	for _, e := range events {
		r <- e
	}
	return nil
}
