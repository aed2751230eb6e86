package cli

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/manpage"
	"github.com/postern-project/postern/internal/reference"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// released is the day of the release: the date of the manual pages, which are
// committed and say the same whenever they are made.
var released = time.Date(2026, time.November, 30, 0, 0, 0, 0, time.UTC)

// newMan returns the command that writes the manual pages. It is for those who
// build Postern, and in no list.
func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.InitDefaultCompletionCmd()
			rules, err := reference.Rules()
			if err != nil {
				return err
			}
			return writePages(args[0], append(commandPages(root), pamPage(), eventsPage(), reference.Caddyfile(), rules))
		},
	}
}

// writePages writes pages to a directory, and removes those that are no more.
func writePages(dir string, pages []*manpage.Page) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.[1-8]"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return postern.Errorf(postern.Unavailable, "%w", err)
		}
	}
	for _, p := range pages {
		p.Date, p.Source = released, "Postern"
		if err := os.WriteFile(filepath.Join(dir, p.FileName()), p.Roff(), 0o644); err != nil {
			return postern.Errorf(postern.Unavailable, "%w", err)
		}
	}
	return nil
}

// commandPages returns a page a command or help topic of a tree.
func commandPages(c *cobra.Command) []*manpage.Page {
	if c.Hidden {
		return nil
	}
	pages := []*manpage.Page{commandPage(c)}
	for _, sub := range c.Commands() {
		pages = append(pages, commandPages(sub)...)
	}
	return pages
}

func commandPage(c *cobra.Command) *manpage.Page {
	c.InitDefaultHelpFlag()
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	if isTopic(c) {
		return &manpage.Page{Name: name, Section: 7, Title: c.Short, Sections: []manpage.Section{
			{Heading: "DESCRIPTION", Items: topics[c.Name()]}, {Heading: "SEE ALSO", Text: "postern(1)"},
		}}
	}
	description := cmp.Or(c.Long, c.Short+".")
	files := append([]manpage.Item{}, stateFiles[:1]...)
	if !c.HasParent() {
		files = stateFiles
	}
	return &manpage.Page{
		Name: name, Section: 1, Title: c.Short, Synopsis: []string{c.UseLine()},
		Sections: []manpage.Section{
			{Heading: "DESCRIPTION", Text: description},
			{Heading: "COMMANDS", Items: subcommands(c)},
			{Heading: "OPTIONS", Items: options(c)},
			{Heading: "EXIT STATUS", Items: exitCodes},
			{Heading: "FILES", Items: files},
			{Heading: "ENVIRONMENT", Items: environmentOf(c)},
			{Heading: "EXAMPLES", Text: examples(c)},
			{Heading: "SEE ALSO", Text: seeAlso(c)},
		},
	}
}

// isTopic reports whether a command is a page of the help alone.
func isTopic(c *cobra.Command) bool { return !c.Runnable() && !c.HasSubCommands() }

func subcommands(c *cobra.Command) []manpage.Item {
	var items []manpage.Item
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			items = append(items, manpage.Item{Term: sub.Name(), Text: sub.Short + "."})
		}
	}
	return items
}

// options returns the flags of a command, its own and those of every command.
func options(c *cobra.Command) []manpage.Item {
	var items []manpage.Item
	add := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if name != "" && f.Value.Type() != "bool" {
			term += " " + name
		}
		switch {
		case strings.Contains(usage, "default"):
		case f.DefValue == "", f.DefValue == "false", f.DefValue == "0", f.DefValue == "[]", f.DefValue == "0s":
		default:
			usage += " (default " + f.DefValue + ")"
		}
		items = append(items, manpage.Item{Term: term, Text: usage})
	}
	c.NonInheritedFlags().VisitAll(add)
	c.InheritedFlags().VisitAll(add)
	return items
}

// environmentOf returns the variables that a command reads: those of its group,
// and those of all.
func environmentOf(c *cobra.Command) []manpage.Item {
	var items []manpage.Item
	for _, v := range variables {
		if v.only == "" || !c.HasParent() || strings.HasPrefix(c.CommandPath()+" ", "postern "+v.only+" ") {
			items = append(items, v.Item)
		}
	}
	return items
}

// examples returns the examples of a command; a group's are those of its commands.
func examples(c *cobra.Command) string {
	if c.Example != "" || !c.HasSubCommands() {
		return c.Example
	}
	var all []string
	for _, sub := range c.Commands() {
		if text := examples(sub); text != "" && !sub.Hidden {
			first, _, _ := strings.Cut(text, "\n")
			all = append(all, first)
		}
	}
	return strings.Join(all, "\n")
}

// seeAlso names the pages around a command's: the one above, and those below or
// beside it.
func seeAlso(c *cobra.Command) string {
	around := c.Commands()
	var pages []string
	if c.HasParent() {
		pages = append(pages, pageName(c.Parent()))
		if !c.HasSubCommands() {
			around = c.Parent().Commands()
		}
	}
	for _, other := range around {
		if other != c && !other.Hidden && other.Name() != "help" {
			pages = append(pages, pageName(other))
		}
	}
	return strings.Join(append(pages, "postern-exit-codes(7)", "postern-environment(7)", "postern-files(7)"), ",\n")
}

func pageName(c *cobra.Command) string {
	section := "(1)"
	if isTopic(c) {
		section = "(7)"
	}
	return strings.ReplaceAll(c.CommandPath(), " ", "-") + section
}
