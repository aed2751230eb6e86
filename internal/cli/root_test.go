package cli

import (
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/manual"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestEveryCommandExplainsItself: who reads a command's help or manual page finds
// what it does and how to type it.
func TestEveryCommandExplainsItself(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Short == "" {
			t.Errorf("%s says nothing", c.CommandPath())
		}
		if !c.HasSubCommands() && !c.Hidden && !manual.IsTopic(c) && !strings.Contains(c.Example, "postern ") {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
	walk(newRoot(&app{}))
}

// TestFlagsLookAlike: a flag that takes a value names it in capitals, and output
// goes where --out says.
func TestFlagsLookAlike(t *testing.T) {
	leaves(t, func(t *testing.T, _ []string, c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if name, usage := pflag.UnquoteUsage(f); f.Value.Type() != "bool" && name != strings.ToUpper(name) {
				t.Errorf("--%s takes %s: %s", f.Name, name, usage)
			}
			if f.Shorthand == "o" && f.Name != "out" {
				t.Errorf("-o is --%s", f.Name)
			}
		})
	})
}

// TestHelpTextsAreOfCommands finds texts that no command has.
func TestHelpTextsAreOfCommands(t *testing.T) {
	files, err := helpTexts.ReadDir("help")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	root := newRoot(&app{})
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".txt")
		c := root
		for name != "" && c != nil {
			var next *cobra.Command
			for _, sub := range c.Commands() { // add-key, rather than add
				if strings.HasPrefix(name+"-", sub.Name()+"-") && (next == nil || len(sub.Name()) > len(next.Name())) {
					next = sub
				}
			}
			if next != nil {
				name = strings.TrimPrefix(strings.TrimPrefix(name, next.Name()), "-")
			}
			c = next
		}
		if c == nil || c.Long == "" && c.Example == "" {
			t.Errorf("no command has the text of help/%s", f.Name())
		}
	}
}
