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
			return terminal.JSON(a.out, versionJSON{version(), runtime.GOOS, runtime.GOARCH, runtime.Version()})
		}
		return a.done(nil, "postern %s\n", versionLine())
	}
	return cmd
}

// versionJSON is the version as it is printed.
type versionJSON struct {
	Version string `json:"version"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Go      string `json:"go"`
}

func versionLine() string {
	return fmt.Sprintf("%s %s/%s %s", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// version returns the module version the binary was built from, or "devel".
func version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}
