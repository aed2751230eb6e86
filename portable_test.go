package postern_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestBuildsForComputersOfPeople type-checks the command for the systems that
// people log in from. Compiling it, as make portable does, takes minutes.
func TestBuildsForComputersOfPeople(t *testing.T) {
	if ranWithoutRace(t) {
		return
	}
	for _, system := range []string{"darwin/arm64", "windows/amd64"} {
		t.Run(system, func(t *testing.T) {
			for _, problem := range typeCheck(t, system) {
				t.Error(problem)
			}
		})
	}
	t.Run("without a server", func(t *testing.T) {
		for _, problem := range typeCheck(t, "linux/arm64", "-tags=noserver") {
			t.Error(problem)
		}
	})
}

// ranWithoutRace runs a test of one goroutine again without the race detector, under which it
// would take ten times as long, and reports whether it did. Without the detector it does not.
func ranWithoutRace(t *testing.T) bool {
	t.Helper()
	info, _ := debug.ReadBuildInfo()
	if info == nil || !slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return false
	}
	cmd := exec.Command("go", "test", "-race=false", "-vet=off", "-count=1", "-v", "-run", "^"+t.Name()+"$", ".")
	cmd.Env = append(os.Environ(), "GOGC=400") // it ends soon
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

// typeCheck returns what is wrong with the command on a system, GOOS/GOARCH.
func typeCheck(t *testing.T, system string, flags ...string) (problems []string) {
	goos, arch, _ := strings.Cut(system, "/")
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
			packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax,
		Env:       append(os.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0"),
		ParseFile: parseOurs, BuildFlags: flags,
	}, "./cmd/postern")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	packages.Visit(pkgs, nil, func(p *packages.Package) {
		if !ours(p.PkgPath) {
			return
		}
		checked++
		for _, e := range p.Errors {
			problems = append(problems, e.Error())
		}
	})
	if checked < 20 || len(pkgs) != 1 || pkgs[0].Types == nil {
		t.Errorf("%d packages were checked", checked)
	}
	return problems
}

// parseOurs parses a file, of other modules without what the functions do.
func parseOurs(set *token.FileSet, name string, src []byte) (*ast.File, error) {
	f, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
	if f == nil || strings.HasPrefix(name, root) {
		return f, err
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			fn.Body = nil
		}
	}
	return f, err
}

// root is the directory of this module.
var root, _ = os.Getwd()

// TestTheAgentUsesNoTemplate holds how large the agent is. A template calls methods by their
// names, so the linker of a program that runs one leaves no exported method out.
func TestTheAgentUsesNoTemplate(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags=noserver", "-f",
		`{{if and .Module .Module.Main}}{{range .GoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{end}}`,
		"./cmd/postern").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	if len(files) < 100 {
		t.Errorf("the agent is built of %d files", len(files))
	}
	for _, file := range files {
		if strings.HasSuffix(file, "/internal/sshd/sign/sign.go") { // only the server calls what runs its page
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, runs := range []string{
			"template.New(", "template.Must(", "VersionTemplate(", "UsageTemplate(",
			"HelpTemplate(",
		} {
			if strings.Contains(string(text), runs) {
				t.Errorf("%s: %s makes the agent several megabytes larger", file, runs)
			}
		}
	}
}
