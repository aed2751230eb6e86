package manual

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/manpage"
	"github.com/spf13/cobra"
)

// tree has a group of two commands, a hidden one, and the help topics.
func tree() *cobra.Command {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "postern", Short: "Do it all"}
	group := &cobra.Command{Use: "otp", Short: "One-time passwords", Run: run}
	list := &cobra.Command{
		Use: "list", Short: "List them", Example: "  postern otp list\n  postern otp list --json",
		Run: run,
	}
	list.Flags().StringP("out", "o", "", "the `FILE` to write")
	list.Flags().Int("lines", 10, "at most so `MANY`")
	list.Flags().Bool("old", false, "kept for old scripts")
	_ = list.Flags().MarkHidden("old")
	group.AddCommand(list, &cobra.Command{Use: "secret", Hidden: true, Run: run})
	root.AddCommand(group, &cobra.Command{Use: "agent", Short: "Watch", Run: run})
	root.AddCommand(Topics()...)
	return root
}

func page(t *testing.T, pages []*manpage.Page, name string) *manpage.Page {
	t.Helper()
	i := slices.IndexFunc(pages, func(p *manpage.Page) bool { return p.FileName() == name })
	if i < 0 {
		t.Fatalf("there is no page %s", name)
	}
	return pages[i]
}

// section returns what a section says, or "".
func section(p *manpage.Page, heading string) string {
	var b strings.Builder
	for _, s := range p.Sections {
		if s.Heading == heading {
			b.WriteString(s.Text)
			for _, i := range s.Items {
				b.WriteString("[" + i.Term + "|" + i.Text + "]")
			}
		}
	}
	return b.String()
}

func TestEachCommandHasItsPage(t *testing.T) {
	pages := Pages(tree())
	for _, name := range []string{
		"postern.1", "postern-otp.1", "postern-agent.1", "postern-files.7", "postern-exit-codes.7",
		"postern-environment.7",
		"pam_postern.8", "postern-events.7",
	} {
		page(t, pages, name)
	}
	for _, p := range pages {
		if strings.Contains(p.Name, "secret") {
			t.Errorf("a hidden command has the page %s", p.FileName())
		}
	}
	list := page(t, pages, "postern-otp-list.1")
	if got := section(list, "OPTIONS"); !strings.Contains(got, "[-o, --out FILE|the FILE to write]") ||
		!strings.Contains(got, "[--lines MANY|at most so MANY (default 10)]") || strings.Contains(got, "--old") {
		t.Errorf("OPTIONS: %s", got)
	}
	if got := section(list, "SEE ALSO"); !strings.HasPrefix(got, "postern-otp(1),\n") ||
		strings.Contains(got, "postern-otp-list") {
		t.Errorf("SEE ALSO: %s", got)
	}
	if got := section(page(t, pages, "postern-otp.1"), "COMMANDS"); got != "[list|List them.]" {
		t.Errorf("COMMANDS: %s", got)
	}
	if got := section(page(t, pages, "postern-otp.1"), "EXAMPLES"); got != "  postern otp list" {
		t.Errorf("EXAMPLES of a group: %s", got)
	}
}

func TestAPageNamesTheVariablesThatItsCommandReads(t *testing.T) {
	pages := Pages(tree())
	for name, proxy := range map[string]bool{"postern.1": true, "postern-agent.1": true, "postern-otp-list.1": false} {
		t.Run(name, func(t *testing.T) {
			got := section(page(t, pages, name), "ENVIRONMENT")
			if strings.Contains(got, "HTTPS_PROXY") != proxy || !strings.Contains(got, "POSTERN_STATE") {
				t.Errorf("ENVIRONMENT: %s", got)
			}
		})
	}
}
