// Package reference describes the Caddyfile's words and the language of rules,
// as manual pages and in Markdown, from the tables that the parser and the rule
// compiler themselves use.
package reference

import (
	"fmt"
	"strings"

	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/gate"
	"github.com/postern-project/postern/internal/manpage"
)

const caddyfileExample = `{
	postern {
		mail   smtp://localhost
		portal id.example.com {
			sign_up example.com
		}
	}
}

www.example.com {
	root * /var/www/example
	php_fastcgi unix//run/php/php-fpm.sock
	require /wp-admin* /wp-login.php* {
		person dan@example.com
		rule   ` + "`address.within(\"192.0.2.0/24\")`" + `
	}
	require /wiki* {
		group editors
		header_up X-Editor ` + "`person.name`" + `
		or anyone {
			method GET HEAD
		}
	}
}
`

const caddyfileIntro = `The configuration of postern run is a Caddyfile. All of Caddy's directives can be used;
Postern adds the directive require and the global option postern. The configuration is taken up anew by postern run
--reload, or on SIGHUP, without dropping a connection.`

// ruleExamples are rules with what they are for.
var ruleExamples = []manpage.Item{
	{Term: `cert.subject.cn == "Alice"`, Text: "The certificate names Alice, and no other person."},
	{Term: `cert.subject.ou.exists(u, u == "audit")`, Text: "One of the organisational units is audit."},
	{
		Term: `"audit" in person.groups && address.within("192.0.2.0/24")`,
		Text: "Members of a group, from one network.",
	},
	{
		Term: `request.method in ["GET", "HEAD"] || "editors" in person.groups`,
		Text: "All may read, and editors may write.",
	},
	{Term: `cert.not_after - time > duration("168h")`, Text: "The certificate is valid for another week at least."},
	{Term: `time.getHours("Europe/Berlin") >= 8 && time.getHours("Europe/Berlin") < 18`, Text: "In office hours."},
}

const rulesIntro = `The argument of rule, in a require block, is an expression of CEL (https://cel.dev) that is true
or false, over the variables below. A request passes if every rule holds; a rule that cannot be evaluated does not
hold. Rules are compiled, and their cost is bounded, when the configuration is loaded: an error names its line and
column.`

const rulesLists = `An attribute of a name may occur more than once, and programs differ in which occurrence they look
at. So a comparison of such a list with one value (==, !=, in, startsWith, matches and the like) holds only if the
list has exactly one value. Say exists or all for any or all of them. The same is so of alternative names, of a
header's values and of an extension's.`

const rulesPaths = `Servers may read a path in several ways (/a/../b, /a;x, //a): a rule that reads it must hold for
each of them. Case is kept: write (?i) in a pattern that refuses. In the same way it must hold for each method that
the request names: its own, and that of X-HTTP-Method-Override, X-HTTP-Method, X-Method-Override, and of _method in
the query.`

// Caddyfile returns postern-caddyfile(5).
func Caddyfile() *manpage.Page {
	p := &manpage.Page{
		Name: "postern-caddyfile", Section: 5, Title: "The configuration of postern run",
		Sections: []manpage.Section{{Heading: "DESCRIPTION", Text: caddyfileIntro}},
	}
	for _, b := range front.Blocks() {
		p.Sections = append(p.Sections, manpage.Section{
			Heading: strings.ToUpper(b.Name),
			Text:    "  " + b.Usage + "\n\n" + b.Doc, Items: wordItems(b),
		})
	}
	p.Sections = append(p.Sections,
		manpage.Section{Heading: "EXAMPLES", Text: indent(caddyfileExample)},
		manpage.Section{Heading: "SEE ALSO", Text: "postern-run(1), postern-rules(7)"})
	return p
}

func wordItems(b front.Block) []manpage.Item {
	var items []manpage.Item
	for _, w := range b.Words {
		items = append(items, manpage.Item{Term: strings.TrimSpace(w.Name + " " + w.Args), Text: w.Doc})
	}
	return items
}

// Rules returns postern-rules(7).
func Rules() (*manpage.Page, error) {
	ref, err := gate.Rules()
	if err != nil {
		return nil, err
	}
	p := &manpage.Page{
		Name: "postern-rules", Section: 7, Title: "What a rule may say about a request",
		Sections: []manpage.Section{
			{Heading: "DESCRIPTION", Text: rulesIntro},
			{Heading: "VARIABLES", Items: termItems(ref.Variables)},
		},
	}
	for _, t := range ref.Types {
		p.Sections = append(p.Sections, manpage.Section{
			Heading: "FIELDS OF A " + strings.ToUpper(t.Name), Text: t.Doc,
			Items: termItems(t.Fields),
		})
	}
	p.Sections = append(p.Sections,
		manpage.Section{Heading: "FUNCTIONS", Items: functionItems(ref.Functions)},
		manpage.Section{Heading: "LISTS COMPARED WITH ONE VALUE", Text: rulesLists},
		manpage.Section{Heading: "PATHS", Text: rulesPaths},
		manpage.Section{Heading: "EXAMPLES", Items: ruleExamples},
		manpage.Section{Heading: "SEE ALSO", Text: "postern-caddyfile(5), postern-run(1)"})
	return p, nil
}

func termItems(terms []gate.Term) []manpage.Item {
	var items []manpage.Item
	for _, t := range terms {
		items = append(items, manpage.Item{Term: t.Name, Text: sentence(t.Doc) + " (" + t.Type + ")"})
	}
	return items
}

func functionItems(terms []gate.Term) []manpage.Item {
	var items []manpage.Item
	for _, t := range terms {
		for _, use := range t.Uses {
			items = append(items, manpage.Item{Term: use, Text: sentence(t.Doc) + " (" + t.Type + ")"})
		}
	}
	return items
}

func sentence(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

// Markdown returns a page in Markdown.
func Markdown(p *manpage.Page) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Generated by go generate; do not edit. -->\n\n# %s\n", p.Title)
	for _, s := range p.Sections {
		if s.Heading == "SEE ALSO" {
			continue
		}
		if s.Heading != "DESCRIPTION" {
			fmt.Fprintf(&b, "\n## %s\n", heading(s.Heading))
		}
		markdownText(&b, s.Text)
		if len(s.Items) > 0 {
			b.WriteString("\n| | |\n| --- | --- |\n")
		}
		for _, i := range s.Items {
			fmt.Fprintf(&b, "| %s | %s |\n", code(i.Term), cell(i.Text))
		}
	}
	return []byte(b.String())
}

// heading writes a manual page's heading as Markdown's are written.
func heading(s string) string {
	s = s[:1] + strings.ToLower(s[1:])
	return strings.NewReplacer(" tls", " TLS connection", "a altnames", "alternative names", "a name",
		"a distinguished name").Replace(s)
}

func markdownText(b *strings.Builder, text string) {
	for _, paragraph := range strings.Split(text, "\n\n") {
		switch {
		case paragraph == "":
		case strings.HasPrefix(text, "  {"): // the example of a whole file
			fmt.Fprintf(b, "\n```caddyfile\n%s\n```\n", strings.TrimPrefix(strings.ReplaceAll(text, "\n  ", "\n"),
				"  "))
			return
		case strings.HasPrefix(paragraph, "  "):
			fmt.Fprintf(b, "\n    %s\n", strings.TrimSpace(paragraph))
		default:
			fmt.Fprintf(b, "\n%s\n", paragraph)
		}
	}
}

func code(s string) string {
	s = strings.ReplaceAll(s, "|", `\|`)
	if strings.Contains(s, "`") {
		return "`` " + s + " ``"
	}
	return "`" + s + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
