package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
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
		if !c.HasSubCommands() && !c.Hidden && !strings.Contains(c.Example, "postern ") {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
	walk(newRoot(&app{}))
}
