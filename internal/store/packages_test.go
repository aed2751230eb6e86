package store_test

import (
	"bytes"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestPackagesOnPostgreSQL runs the tests of the packages that use a store, which run
// over SQLite elsewhere, over PostgreSQL.
func TestPackagesOnPostgreSQL(t *testing.T) {
	posterntest.Soak(t) // builds the whole program once more
	server := posterntest.StartPostgreSQL(t)
	for _, args := range [][]string{
		{"TESTED=./internal/acme ./internal/ca ./otp ./internal/portal", "ARGS=-short -p 1"},
		{ // the portal over the store
			"TESTED=./internal/server", "ARGS=-short -run 'Enrolment|SignUp|Link|Recover|Suspended|OwnDevices'",
		},
	} {
		cmd := exec.Command("make", append([]string{"-C", "../..", "test", "RACE=" + raced()}, args...)...)
		cmd.Env = append(os.Environ(), storetest.DatabaseEnv+"="+server.URL("postgres"))
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("[no tests to run]")) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// raced returns 1 if this test was built with the race detector: the others
// are, then, so that nothing is built twice.
func raced() string {
	info, _ := debug.ReadBuildInfo()
	if slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return "1"
	}
	return "0"
}
