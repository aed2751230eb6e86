package format_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// procedures returns the procedures that globs name, in programs.
func procedures(t *testing.T, programs []string, globs ...string) map[event.Procedure]bool {
	t.Helper()
	set, err := libvirt.Procedures(programs, globs)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// with returns the filter that a word makes.
func with(t *testing.T, add func(*correlate.Filter, string) error, word string) (f correlate.Filter) {
	t.Helper()
	if err := add(&f, word); err != nil {
		t.Fatal(err)
	}
	return f
}

func isMessage(line string) bool { return strings.Contains(line, "remote.") }

// TestFilters holds each filter against what it must and must not show.
func TestFilters(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	var root correlate.Filter
	if !root.AddUser("root") {
		t.Error("root is not known")
	}
	for _, c := range []struct {
		name   string
		filter correlate.Filter
		all    string // every message is like this
		some   string // one at least is like this
	}{
		{
			"procedure",
			correlate.Filter{Procedures: procedures(t, nil, "domain_get_*")},
			`remote\.domain_get_`,
			`<S .*domain_get_info ok`,
		},
		{
			"program",
			correlate.Filter{Procedures: procedures(t, []string{"remote"}, "*_lookup_*")},
			`lookup`,
			`domain_lookup_by_name\(`,
		},
		{"type", with(t, (*correlate.Filter).AddType, "reply"), `^\S+ (<S|C<) `, `domain_get_info ok`},
		{"status", with(t, (*correlate.Filter).AddStatus, "error"), `failed`, `no domain with matching name 'nope'`},
		{"errors", correlate.Filter{Errors: true}, `domain_lookup_by_name`, `no domain with matching name 'nope'`},
		{"domain", correlate.Filter{Domains: []string{"vm?"}}, `vm1|domain_`, `domain_get_info ok`},
		{"pid", correlate.Filter{PIDs: []int{l.PID}}, `[<>]S`, `>S`},
		{"user", root, `root|C[<>]`, `>S root`},
		{"slower", correlate.Filter{Slower: 1}, `.`, `ok`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := traced(t, func() {
				posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
				_, _ = posterntest.VirshAt(l.UnixURI(), "dominfo", "nope")
			}, capture.Config{Filter: c.filter}, format.Config{Messages: true})
			got := lines(out, isMessage)
			for _, line := range got {
				if !regexp.MustCompile(c.all).MatchString(line) {
					t.Errorf("shows %s", line)
				}
			}
			if !regexp.MustCompile(c.some).MatchString(strings.Join(got, "\n")) {
				t.Errorf("nothing like %s in\n%s", c.some, out)
			}
		})
	}
	var daemon correlate.Filter
	daemon.AddUser("daemon")
	for name, filter := range map[string]correlate.Filter{
		"another user": daemon, "never that slow": {Slower: time.Hour}, "another machine": {Domains: []string{"vm2"}},
		"another connection": {Clients: []uint64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			out := traced(t, func() {
				posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
			}, capture.Config{Filter: filter}, format.Config{})
			if got := lines(out, isMessage); len(got) > 0 {
				t.Errorf("shows %s", got[0])
			}
		})
	}
}
