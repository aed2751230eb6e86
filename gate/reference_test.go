package gate

import "testing"

// TestTheReferenceTellsEverything holds the words of the reference against the
// environment that rules are compiled in: each has some, and none is of anything
// else.
func TestTheReferenceTellsEverything(t *testing.T) {
	ref, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	if len(ref.Variables) != len(variableDocs) || len(ref.Functions) != len(functionDocs) {
		t.Errorf("%d variables and %d functions have words, of %d and %d", len(variableDocs), len(functionDocs),
			len(ref.Variables), len(ref.Functions))
	}
	for _, v := range []string{"cert", "issuer", "chain", "person", "request", "tls", "address", "time"} {
		if variableDocs[v] == "" {
			t.Errorf("the variable %s has no words", v)
		}
	}
	documented := 0
	for _, typ := range ref.Types {
		if documented++; typ.Doc == "" {
			t.Errorf("the type %s has no words", typ.Name)
		}
		for _, f := range typ.Fields {
			if documented++; f.Doc == "" {
				t.Errorf("the field %s of %s has no words", f.Name, typ.Name)
			}
		}
	}
	if documented != len(fieldDocs) {
		t.Errorf("%d words for %d types and fields", len(fieldDocs), documented)
	}
	for _, f := range ref.Functions {
		for _, use := range f.Uses {
			if _, err := CompileRule(use); err != nil {
				t.Errorf("%s: %v", use, err)
			}
		}
	}
}
