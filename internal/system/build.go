package system

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// The version that a package is built of, its commit and the commit's time. The linker sets
// them (packaging/build.sh); they are empty in a build of the source.
var released, commit, date string

// Build says what this program was built of, and for what.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Date    string `json:"date,omitempty"` // the commit's time
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Go      string `json:"go"`
}

// ThisBuild returns what this program was built of.
func ThisBuild() Build {
	return Build{
		Version: Version(), Commit: commit, Date: date,
		OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(),
	}
}

// String returns the build on one line.
func (b Build) String() string {
	line := fmt.Sprintf("%s %s/%s %s", b.Version, b.OS, b.Arch, b.Go)
	if b.Commit != "" {
		line += fmt.Sprintf(" commit %s of %s", b.Commit, b.Date)
	}
	return line
}

// Version returns the version that the package or the module has which the program was
// built of, or "devel".
func Version() string {
	if released != "" {
		return released
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}
