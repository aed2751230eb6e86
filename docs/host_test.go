package docs_test

import (
	"os"
	"slices"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

func TestMain(m *testing.M) { os.Exit(posterntest.Run(m)) }

// host is a fresh Debian that a page is followed on.
type host struct {
	*posterntest.Machine
	you  *posterntest.Shell // alice's
	more map[string]*terminal
	// hosts are others on the same network.
	hosts map[string]*host
	// recordings are what blocks with a recording's name showed so far.
	recordings map[string][]scene
}

// terminal is a shell in which a command goes on.
type terminal struct {
	*posterntest.Shell
	begun step
}

// newHost starts a host, which ends with the test.
func newHost(t testing.TB) *host {
	t.Helper()
	m := posterntest.StartMachine(t)
	return &host{
		Machine: m, you: m.Shell("alice"), more: map[string]*terminal{}, hosts: map[string]*host{},
		recordings: map[string][]scene{},
	}
}

// start starts a step's command, and waits until it has printed what the page shows.
func (t *terminal) start(s step) {
	t.begun = s
	t.Start(s.typed(), func(seen string) bool {
		return len(s.output) > 0 && matches(slices.Concat([]string{"…"}, s.output, []string{"…"}), plain(seen))
	})
}
