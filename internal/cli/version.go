package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *asJSON {
			return terminal.JSON(a.out, versionJSON{
				Version: version(), Commit: commit, Date: date,
				OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(),
			})
		}
		return a.done(nil, "postern %s\n", versionLine())
	}
	return cmd
}

// The version that a package is built of, its commit and the commit's time. The linker sets
// them (packaging/build.sh); they are empty in a build of the source.
var released, commit, date string

// versionJSON is the version as it is printed.
type versionJSON struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Date    string `json:"date,omitempty"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Go      string `json:"go"`
}

func versionLine() string {
	line := fmt.Sprintf("%s %s/%s %s", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if commit != "" {
		line += fmt.Sprintf(" commit %s of %s", commit, date)
	}
	return line
}

// version returns the version that the package or the module has which the program was built
// of, or "devel".
func version() string {
	if released != "" {
		return released
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}
