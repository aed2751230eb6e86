package postern_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/postern-project/postern"

// knowledge is what few packages may know, by the import paths that bring it.
var knowledge = []struct {
	name  string
	paths []string // "/..." at the end means all that lies below, too
}{
	{"HTTP", []string{"net/http"}},
	{"SQL", []string{
		"database/sql", "modernc.org/sqlite/...", "github.com/jackc/pgx/...",
		"github.com/pressly/goose/...",
	}},
	{"Caddy", []string{"github.com/caddyserver/..."}},
	{"BPF", []string{"github.com/cilium/ebpf/..."}},
	{"PKCS#11", []string{"github.com/miekg/pkcs11/..."}},
	{"cobra", []string{"github.com/spf13/cobra/...", "github.com/spf13/pflag"}},
	{"LDAP", []string{"github.com/go-ldap/..."}},
}

// row says what a package may import, and with it every package below its
// directory. What is not listed is forbidden.
type row struct {
	imports string // packages of this module, besides the root package, [shared] and those below its own directory
	knows   string // of knowledge
	tests   string // what its tests may know or import besides, and besides HTTP, the store and posterntest
	hides   bool   // packages that import it do not thereby know what it knows
}

// shared packages may be imported by every package but the root. They import
// none.
const shared = "coalesce durable piv system"

const (
	domain = "acme alert apache ca chart console directory gate host otp passkey portal reach relay sshd timeline " +
		"webhook"
	adapters = "front store"
)

// rows are the packages of this module: the first element of their directory,
// below internal where it lies there. The order is the one of the layers: a
// package imports what stands above it.
var rows = map[string]row{
	"":           {},
	"pam":        {},
	"reach":      {knows: "HTTP"},
	"webhook":    {knows: "HTTP"},
	"coalesce":   {},
	"piv":        {},
	"durable":    {},
	"system":     {},
	"manpage":    {},
	"metrics":    {knows: "HTTP SQL", hides: true}, // SQL by Prometheus' own collectors
	"jsonschema": {},
	"terminal":   {},
	"chart":      {},
	"console":    {imports: "chart timeline"},

	"acme":      {imports: "reach", knows: "HTTP"},
	"alert":     {imports: "webhook", knows: "HTTP", tests: "timeline"},
	"apache":    {knows: "HTTP"},
	"ca":        {knows: "HTTP PKCS#11", hides: true},
	"directory": {knows: "LDAP", tests: "timeline", hides: true},
	"gate":      {},
	"host":      {knows: "HTTP"},
	"otp":       {knows: "HTTP"},
	"passkey":   {knows: "HTTP"},
	"portal":    {imports: "chart console reach timeline", knows: "HTTP"},
	"relay":     {knows: "HTTP"},
	"sshd":      {knows: "HTTP", tests: "agent ca host otp relay server timeline"},
	"timeline":  {},
	"trace":     {imports: "chart terminal", knows: "BPF", tests: "collector", hides: true},
	"witness":   {imports: "timeline", knows: "HTTP"},
	"archive":   {imports: "timeline"},
	"export":    {imports: "timeline webhook", knows: "HTTP"},

	"collector":  {knows: "HTTP"},
	"debuginfod": {knows: "HTTP"},

	"store": {imports: domain, knows: "HTTP SQL", tests: "SQL", hides: true},
	"front": {imports: "gate", knows: "HTTP Caddy", hides: true},

	"usage":     {imports: "terminal", knows: "cobra"},
	"manual":    {imports: "manpage terminal", knows: "cobra"},
	"reference": {imports: "front gate manpage", knows: "HTTP", hides: true},

	"state":  {imports: "store timeline"},
	"backup": {imports: "state store timeline", tests: "ca otp portal"},
	"people": {imports: "ca chart console portal state store timeline", knows: "HTTP", tests: "otp"},

	"client": {imports: "otp sshd timeline", knows: "HTTP"},
	"login":  {imports: "otp sshd", knows: "HTTP"},
	"join":   {imports: "host sshd", knows: "HTTP", tests: "ca server state"},
	"agent":  {imports: "host otp relay sshd trace timeline", knows: "HTTP", tests: "ca server state"},
	"server": {
		imports: domain + " metrics people state witness " + adapters,
		knows:   "HTTP", tests: "Caddy client agent join",
	},
	"doctor": {
		imports: domain + " " + adapters + " metrics people state witness server trace terminal",
		knows:   "HTTP",
	},

	"cli": {
		imports: domain + " " + adapters +
			" trace export collector debuginfod metrics people state archive witness backup client login join agent " +
			"server doctor usage manpage manual jsonschema terminal reference",
		knows: "HTTP cobra", tests: "SQL Caddy", hides: true,
	},
	"cmd": {imports: "cli"},

	"packaging": {},

	"docs": {imports: "reference front gate manpage posterntest", knows: "HTTP"},

	"posterntest": {knows: "HTTP SQL", hides: true},
	"bench":       {imports: "posterntest trace front", knows: "HTTP Caddy BPF", tests: "SQL " + domain},
}

// unlinked are modules and packages that came along with others and are not used: Caddy's
// own CA would bring them, and the highlighting of code in Caddy's templates.
// internal/smallstep and internal/highlighting stand in for what brought them.
var unlinked = []string{
	"cloud.google.com/go", "github.com/dgraph-io", "github.com/smallstep/linkedca", "github.com/smallstep/nosql",
	"github.com/smallstep/scep", "go.etcd.io/bbolt", "google.golang.org/api",
	"github.com/alecthomas/chroma/v2/lexers", "github.com/alecthomas/chroma/v2/styles",
}

// imports is what each package imports.
type imports map[string][]string

func TestPackagesImportOneWay(t *testing.T) {
	for _, p := range append(written(t), linked(t)...) {
		t.Error(p)
	}
}

// written checks what each file imports, for whichever system it is.
func written(t *testing.T) (problems []string) {
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != "." && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") ||
			anotherModule(file)) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(path.Join(module, path.Dir(file)), imp,
				strings.HasSuffix(file, "_test.go")); why != "" {
				problems = append(problems, fmt.Sprintf("%s imports %s: %s", file, imp, why))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return problems
}

func anotherModule(dir string) bool {
	_, err := os.Stat(path.Join(dir, "go.mod"))
	return err == nil
}

// linked checks what each package brings along through others.
func linked(t *testing.T) []string {
	cmd := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := make(imports)
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		all[words[0]] = words[1:]
	}
	return all.problems()
}

// TestTheAgentLinksNoServer holds what the program for hypervisors and for people's computers
// is built of: it carries no web server, no database and no certificate authority.
func TestTheAgentLinksNoServer(t *testing.T) {
	links := func(flags ...string) []string {
		out, err := exec.Command("go", append([]string{"list", "-deps"}, append(flags, "./cmd/postern")...)...).
			Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	whole, agent := links(), links("-tags=noserver")
	for _, pkg := range []string{
		"github.com/caddyserver/caddy/v2", "modernc.org/sqlite", "github.com/jackc/pgx/v5", "github.com/miekg/pkcs11",
		"github.com/go-ldap/ldap/v3", module + "/internal/store", module + "/internal/server",
		module + "/internal/ca", module + "/internal/portal", module + "/front",
	} {
		if !slices.Contains(whole, pkg) {
			t.Errorf("the server does not link %s, so this test is of no use", pkg)
		}
		if slices.Contains(agent, pkg) {
			t.Errorf("the agent links %s", pkg)
		}
	}
	for _, pkg := range []string{"agent", "client", "login", "trace/capture", "sshd/audit"} {
		if !slices.Contains(agent, module+"/internal/"+pkg) {
			t.Errorf("the agent does not link %s", pkg)
		}
	}
}

// problems says, for each package of the module, what it comes to know or to
// import through others without being allowed to.
func (all imports) problems() (problems []string) {
	for pkg := range all {
		for _, u := range unlinked {
			if pkg == u || strings.HasPrefix(pkg, u+"/") {
				problems = append(problems, pkg+" is linked, and not used")
			}
		}
		if !ours(pkg) {
			continue
		}
		for reached, by := range all.reach(pkg) {
			if why := forbidden(pkg, reached, false); why != "" {
				problems = append(problems, fmt.Sprintf("%s reaches %s: %s\n\t%s", pkg, reached, why,
					strings.Join(by, " → ")))
			}
		}
	}
	slices.Sort(problems)
	return problems
}

// reach returns what a package imports, directly and through others, each with
// the shortest way there. It does not look behind a package that hides what it
// knows, or behind what the package itself may know.
func (all imports) reach(pkg string) map[string][]string {
	ways := map[string][]string{pkg: {pkg}}
	for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != pkg && (known(at) != "" || ours(at) && rows[area(at)].hides && area(at) != area(pkg)) {
			continue
		}
		for _, imp := range all[at] {
			if _, ok := ways[imp]; !ok {
				ways[imp] = append(slices.Clone(ways[at]), imp)
				queue = append(queue, imp)
			}
		}
	}
	delete(ways, pkg)
	return ways
}

func ours(pkg string) bool { return pkg == module || strings.HasPrefix(pkg, module+"/") }

// area returns the name of the row that a package of the module belongs to.
func area(pkg string) string {
	dir := strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
	name, _, _ := strings.Cut(strings.TrimPrefix(dir, "internal/"), "/")
	return name
}

// known returns the knowledge that an import brings, or "".
func known(imp string) string {
	for _, k := range knowledge {
		for _, p := range k.paths {
			below, all := strings.CutSuffix(p, "/...")
			if imp == below || all && strings.HasPrefix(imp, below+"/") {
				return k.name
			}
		}
	}
	return ""
}

// forbidden says why a package, or its tests, must not import another, or
// returns "".
func forbidden(pkg, imp string, test bool) string {
	from := area(pkg)
	r, ok := rows[from]
	if !ok {
		return fmt.Sprintf("package %s has no row: say in imports_test.go and ARCHITECTURE.md what it may import",
			from)
	}
	if ours(imp) {
		return forbiddenHere(from, area(imp), r, test)
	}
	k := known(imp)
	switch {
	case k != "" && !has(r.knows, k) && !(test && (k == "HTTP" || has(r.tests, k))):
		return fmt.Sprintf("%s must not know %s", nameOf(from), k)
	case from == "" && !test && strings.Contains(strings.Split(imp, "/")[0], "."):
		return "the root package imports the standard library only"
	}
	return ""
}

// forbiddenHere does so for an import of the same module.
func forbiddenHere(from, to string, r row, test bool) string {
	_, ok := rows[to]
	switch {
	case !ok:
		return fmt.Sprintf("package %s has no row: say in imports_test.go and ARCHITECTURE.md what it may import", to)
	case to == from, to == "", from != "" && has(shared, to), has(r.imports, to):
		return ""
	case test && (to == "posterntest" || from != "posterntest" && to == "store" || has(r.tests, to)):
		return ""
	}
	return fmt.Sprintf("%s must not know package %s", nameOf(from), to)
}

func has(list, word string) bool { return slices.Contains(strings.Fields(list), word) }

func nameOf(area string) string {
	if area == "" {
		return "the root package"
	}
	return "package " + area
}

// TestImportRulesCanFail tries each thing that ARCHITECTURE.md says a package
// must not know.
func TestImportRulesCanFail(t *testing.T) {
	const (
		caddy  = "github.com/caddyserver/caddy/v2"
		cobra  = "github.com/spf13/cobra"
		ebpf   = "github.com/cilium/ebpf"
		sqlite = "modernc.org/sqlite"
	)
	must := map[string][]string{
		"":                      {"net/http", "database/sql", "golang.org/x/crypto/ssh", "gate"},
		"internal/ca":           {"front", caddy, "database/sql", "internal/store"},
		"internal/acme":         {"internal/ca", "internal/store", "database/sql"},
		"gate":                  {caddy, "database/sql", "net/http", "internal/store", "front", "internal/reach"},
		"internal/portal":       {caddy, "database/sql", "internal/ca", "internal/store", "internal/people"},
		"otp":                   {"database/sql", "internal/store", "internal/sshd"},
		"internal/sshd":         {"otp", "internal/store", caddy},
		"internal/sshd/shell":   {"otp", "database/sql"},
		"pam":                   {"otp", "net/http", "internal/sshd"},
		"internal/trace":        {"net/http", "database/sql", "internal/relay", cobra},
		"internal/trace/format": {"net/http", sqlite, "timeline"},
		"internal/trace/export": {"net/http", "internal/collector"},
		"internal/collector":    {"internal/trace/export", ebpf, "database/sql"},
		"timeline":              {"database/sql", "internal/store", "net/http"},
		"internal/relay":        {"internal/trace", "internal/trace/event", "database/sql"},
		"internal/apache":       {caddy, "front", "gate"},
		"internal/reach":        {"internal/acme", "internal/portal", "internal/store"},
		"internal/store":        {caddy, "front", "github.com/caddyserver/certmagic", "internal/server"},
		"front": {
			"database/sql", sqlite, "github.com/jackc/pgx/v5", "internal/store",
			"internal/ca",
		},
		"internal/state":   {"internal/ca", "internal/portal", "front", "net/http", "database/sql", cobra},
		"internal/backup":  {"internal/ca", "front", "net/http", "database/sql", cobra},
		"internal/people":  {"front", caddy, "internal/server", "database/sql", cobra},
		"internal/durable": {"internal/store", "timeline", "net/http"},
		"internal/agent":   {"internal/store", "internal/people", "front", "internal/server", "database/sql"},
		"internal/client":  {"internal/server", "internal/store", "internal/portal", "internal/ca"},
		"internal/server": {
			"internal/cli", cobra, "internal/agent", "internal/trace/bpf", "database/sql",
			caddy,
		},
		"internal/cli": {
			"database/sql", sqlite, caddy, ebpf, "github.com/miekg/pkcs11",
			"internal/posterntest",
		},
		"cmd/postern":               {"internal/server", "internal/store", "net/http", cobra, caddy},
		"internal/posterntest":      {"internal/store", "otp", "gate"},
		"internal/nameless":         {"fmt"},
		"internal/trace/bpf":        {"internal/nameless"},
		"internal/ca/pkcs11/module": {"front"},
	}
	for pkg, targets := range must {
		for _, imp := range targets {
			from, to := path.Join(module, pkg), imp
			if _, err := os.Stat(imp); err == nil || strings.HasPrefix(imp, "internal/") {
				to = path.Join(module, imp)
			}
			t.Run(pkg+"→"+imp, func(t *testing.T) {
				if forbidden(from, to, false) == "" {
					t.Errorf("%s may import %s", from, to)
				}
				// Through a package of another module it is the same.
				through := imports{from: {"example.org/between"}, "example.org/between": {to}}
				if len(through.problems()) == 0 {
					t.Errorf("%s may reach %s through another package", from, to)
				}
			})
		}
	}
}

// TestImportsThroughOthersAreSeen holds what a package may and may not come to
// know through packages of the same module.
func TestImportsThroughOthersAreSeen(t *testing.T) {
	for _, c := range []struct {
		name string
		way  []string
		fine bool
	}{
		{"store hides SQL", []string{"internal/cli", "internal/store", "database/sql"}, true},
		{"acme does not", []string{"internal/server", "internal/acme", "database/sql"}, false},
		{
			"what is imported has the importer's limits",
			[]string{"internal/client", "timeline", "internal/store"},
			false,
		},
		{"Caddy's imports are its own", []string{
			"front", "github.com/caddyserver/caddy/v2",
			"github.com/jackc/pgx/v5",
		}, true},
		{
			"a package below has its parent's limits",
			[]string{"internal/trace", "internal/trace/format", "net/http"},
			false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := make(imports)
			for i, pkg := range c.way {
				if _, err := os.Stat(pkg); err == nil || strings.HasPrefix(pkg, "internal/") {
					c.way[i] = path.Join(module, pkg)
				}
				if i > 0 {
					all[c.way[i-1]] = []string{c.way[i]}
				}
			}
			problems := all.problems()
			ofFirst := func(p string) bool { return strings.HasPrefix(p, c.way[0]+" reaches ") }
			if slices.ContainsFunc(problems, ofFirst) == c.fine {
				t.Errorf("%v: %v", c.way, problems)
			}
		})
	}
}

func TestUnusedModulesAreSeen(t *testing.T) {
	for _, pkg := range []string{
		"github.com/dgraph-io/badger/v2", "google.golang.org/api/option",
		"github.com/smallstep/nosql",
	} {
		if len((imports{pkg: nil}).problems()) == 0 {
			t.Errorf("%s may be linked", pkg)
		}
	}
}

func TestTestsImportLittleMore(t *testing.T) {
	for _, c := range []struct {
		pkg, imp string
		fine     bool
	}{
		{"otp", "internal/store", true},
		{"otp", "internal/posterntest", true},
		{"otp", "internal/ca", false},
		{"otp", "database/sql", false},
		{"gate", "net/http", true},
		{"internal/store", "database/sql", true},
		{"internal/cli", "github.com/caddyserver/certmagic", true},
		{"internal/portal", "github.com/caddyserver/certmagic", false},
		{"internal/posterntest", "internal/store", false},
	} {
		imp := c.imp
		if strings.HasPrefix(imp, "internal/") {
			imp = path.Join(module, imp)
		}
		if why := forbidden(path.Join(module, c.pkg), imp, true); (why == "") != c.fine {
			t.Errorf("the tests of %s import %s: %q", c.pkg, c.imp, why)
		}
	}
}
