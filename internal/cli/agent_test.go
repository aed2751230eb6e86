package cli

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
)

// runAgent runs postern agent until stop is called.
func runAgent(t *testing.T, args ...string) (stop func() (string, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var out, errs stream
	done := make(chan int, 1)
	go func() { done <- run(ctx, append([]string{"agent"}, args...), strings.NewReader(""), &out, &errs) }()
	t.Cleanup(cancel)
	for !strings.Contains(errs.String(), "ready:") {
		if len(done) > 0 {
			t.Fatalf("postern agent ends: %s", errs.String())
		}
		posterntest.Pause(t)
	}
	return func() (string, string) {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("postern agent: exit %d: %s", code, errs.String())
		}
		return out.String(), errs.String()
	}
}

// TestAgent watches a real libvirtd through the command line.
func TestAgent(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()
	t.Run("only prints", func(t *testing.T) { agentOnlyPrints(t, l) })
	t.Run("sends", func(t *testing.T) { agentSends(t, l) })
}

// agentOnlyPrints keeps nothing where there is no state.
func agentOnlyPrints(t *testing.T, l *posterntest.Libvirtd) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_STATE_HOME", home)
	t.Setenv("POSTERN_STATE", "")
	before, _ := os.Stat("/var/lib/postern-agent")
	stop := runAgent(t, "--print", "--procedure", "domain_suspend")
	posterntest.Virsh(t, l.UnixURI(), "suspend", "vm1")
	out, _ := stop()
	if !strings.Contains(out, `"object":"vm1"`) || !strings.Contains(out, "domainSuspend") {
		t.Errorf("printed: %s", out)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	if after, _ := os.Stat("/var/lib/postern-agent"); after != nil && before == nil {
		t.Error("a spool is made for root")
	}
}

// agentSends reports to the server on the same state.
func agentSends(t *testing.T, l *posterntest.Libvirtd) {
	dir := filepath.Join(t.TempDir(), "state")
	st, err := state.Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s, err := server.ServeEvents(st, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop := runAgent(t, "--state", dir, "--all")
	posterntest.Virsh(t, l.UnixURI(), "domstate", "vm1")
	out, errs := stop()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if out != "" || !strings.Contains(errs, "ready: watching ") {
		t.Errorf("printed %s%s", out, errs)
	}
	if fi, err := os.Stat(dir + "-agent"); err != nil || !fi.IsDir() {
		t.Errorf("the spool is not beside the state: %v", err)
	}
	said, _ := succeed(t, "--state", dir, "log", "list", "--kind", "libvirt")
	if !regexp.MustCompile(`(?m)^\d+ +\S+ \S+  the account root ran domainGetState on vm1; answered in `).
		MatchString(said) {
		t.Errorf("the timeline says\n%s", said)
	}
}

func TestAgentFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--all --procedure domain_*": "--all and --procedure cannot be used together",
		"--procedure nope_*":         "no procedure fits",
		"--cert x": "are for a server on another host\n" +
			"hint: name that server: --server URL",
		"--server https://id.example.com": "needs a client certificate and its key\n" +
			"hint: issue one to a person of the group agents, on the server: postern user add",
		"--server http://x --cert /x --key /x":        "is not an address",
		"--server https://x --cert /none --key /none": "no such file",
	} {
		t.Run(args, func(t *testing.T) {
			var out, errs stream
			args := append([]string{"agent", "--state", t.TempDir()}, strings.Fields(args)...)
			if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code == 0 ||
				!strings.Contains(errs.String(), want) {
				t.Errorf("exit %d: %s", code, errs.String())
			}
		})
	}
}
