package store_test

import (
	"bytes"
	"os"
	"os/exec"
	"runtime/debug"
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
		{"../acme", "../ca", "../../otp", "../portal"},
		{"-run", "Enrolment|SignUp|Link|Recover|Suspended|OwnDevices", "../server"}, // the portal over the store
	} {
		cmd := exec.Command("go", append([]string{"test", "-short", "-p", "1", "-race=" + raced(), "-vet=off", "-ldflags=-w"}, args...)...)
		cmd.Env = append(os.Environ(), storetest.DatabaseEnv+"="+server.URL("postgres"))
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("[no tests to run]")) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// raced says whether this test was built with the race detector: the others
// are, then, so that nothing is built twice.
func raced() string {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value
		}
	}
	return "false"
}
