package cli

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"strings"

	"github.com/postern-project/postern"
	"github.com/spf13/cobra"
)

// errorHint is what to do about an error.
type errorHint struct {
	err  error
	hint string
}

//go:embed hints.txt
var hintTexts string

// commandHint is a hint of a package, and the command that does what it says.
type commandHint struct{ hint, command string }

// commands are the commands that do what a package's hint, or a finding of the
// doctor's, says. A hint that begins so has the command put behind it.
var commands = commandHints(hintTexts)

// commandHints reads lines of a hint and its command. What stands for the dots behind a
// hint goes to the command, where that ends with dots.
func commandHints(text string) (list []commandHint) {
	for line := range strings.Lines(text) {
		hint, command, _ := strings.Cut(strings.TrimSpace(line), " => ")
		list = append(list, commandHint{strings.TrimSuffix(hint, "..."), strings.TrimSuffix(command, "...")})
	}
	return list
}

// hintOf returns what to do about an error, in commands where there are any.
func hintOf(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return inCommands(postern.HintOf(err))
}

// inCommands puts the command behind a hint that a command does.
func inCommands(hint string) string {
	for _, c := range commands {
		named, ok := strings.CutPrefix(hint, c.hint)
		switch {
		case !ok:
		case strings.HasSuffix(c.command, " "):
			return hint + ": " + c.command + strings.TrimSpace(named)
		default:
			return hint + ": " + c.command
		}
	}
	return hint
}

// hintFor returns what to do about the error that a command ended with. Where
// none was given, it is where to look.
func (a *app) hintFor(ctx context.Context, cmd *cobra.Command, err error) string {
	if hint := hintOf(err); hint != "" {
		return hint
	}
	return cmp.Or(a.whereToLook(ctx, err), "see "+cmd.CommandPath()+" --help")
}

// helpTexts has what the help and the manual page of a command say at length, in a file
// of the command's name: the description and, below a line "Examples:", the examples.
//
//go:embed help
var helpTexts embed.FS

// addHelp gives the commands of a tree their help texts. The first one's file has the name.
func addHelp(cmd *cobra.Command, name string) {
	if text, err := helpTexts.ReadFile("help/" + name + ".txt"); err == nil {
		long, examples, _ := strings.Cut(string(text), "Examples:\n")
		cmd.Long = strings.TrimSpace(long)
		if examples != "" {
			cmd.Example = strings.TrimRight(examples, "\n")
		}
	}
	for _, sub := range cmd.Commands() {
		addHelp(sub, strings.TrimPrefix(name+"-"+sub.Name(), "postern-"))
	}
}
