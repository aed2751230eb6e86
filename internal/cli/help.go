package cli

import (
	"embed"
	"strings"

	"github.com/spf13/cobra"
)

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
