package reference

import (
	"strings"
	"testing"

	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/gate"
)

func TestExamplesOfRulesCompile(t *testing.T) {
	for _, e := range ruleExamples {
		if _, err := gate.CompileRule(e.Term); err != nil {
			t.Errorf("%s: %v", e.Term, err)
		}
	}
}

func TestTheExampleOfACaddyfileLoads(t *testing.T) {
	if _, _, err := front.Adapt([]byte(caddyfileExample), "Caddyfile"); err != nil {
		t.Error(err)
	}
}

// TestEveryWordIsOnItsPage holds the pages against the tables.
func TestEveryWordIsOnItsPage(t *testing.T) {
	rules, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	caddyfile := string(Markdown(Caddyfile()))
	for _, b := range front.Blocks() {
		for _, w := range b.Words {
			if !strings.Contains(caddyfile, w.Doc) || !strings.Contains(caddyfile, w.Name) {
				t.Errorf("%s of %s is not there", w.Name, b.Name)
			}
		}
	}
	ref, err := gate.Rules()
	if err != nil {
		t.Fatal(err)
	}
	page, seen := string(Markdown(rules)), 0
	for _, typ := range ref.Types {
		for _, f := range typ.Fields {
			if seen++; !strings.Contains(page, "| `"+f.Name+"` |") {
				t.Errorf("%s of %s is not there", f.Name, typ.Name)
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d fields", seen)
	}
}
