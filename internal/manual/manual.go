// Package manual is the manual of the commands: a page a command, made of what its help
// says, and pages of what is no command.
package manual

import (
	"cmp"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/manpage"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Released is the day of the release: the date of the pages, which are committed and
// say the same whenever they are made.
var Released = time.Date(2026, time.November, 30, 0, 0, 0, 0, time.UTC)

// Pages returns the pages of the commands and help topics of a tree, of the PAM module
// and of the events.
func Pages(root *cobra.Command) []*manpage.Page {
	root.InitDefaultCompletionCmd()
	return append(commandPages(root), pamPage(), eventsPage())
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
	if IsTopic(c) {
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

// IsTopic reports whether a command is a page of the help alone.
func IsTopic(c *cobra.Command) bool { return !c.Runnable() && !c.HasSubCommands() }

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
	if IsTopic(c) {
		section = "(7)"
	}
	return strings.ReplaceAll(c.CommandPath(), " ", "-") + section
}
