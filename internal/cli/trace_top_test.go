package cli

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/top"
)

// traceTop counts what virsh calls: each call once, though client and daemon are
// both watched.
func traceTop(t *testing.T, l *posterntest.Libvirtd) {
	work := func() {
		for range 3 {
			virsh(t, l.UnixURI(), "domname", "1")
		}
		if out, err := exec.Command("virsh", "-c", l.TCPURI(), "dominfo", "nosuch").CombinedOutput(); err == nil {
			t.Errorf("virsh found nosuch: %s", out)
		}
	}
	type document struct {
		By   string
		Lost int
		Rows []top.Row
	}
	last := func(out string) (d document) {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &d); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		return d
	}
	d := last(traced(t, work, "top", "--json", "--interval", "1h"))
	rows := map[string]top.Row{}
	for _, r := range d.Rows {
		rows[r.Name] = r
		if r.Max == 0 || r.P50 > r.P99 || r.P99 > r.Max || r.Took < r.Max || r.Queued > r.Took {
			t.Errorf("times of %+v", r)
		}
	}
	if d.Lost != 0 || rows["remote.domain_lookup_by_id"].Calls != 3 || rows["remote.connect_open"].Calls != 4 {
		t.Errorf("%+v", d)
	}
	if r := rows["remote.domain_lookup_by_name"]; r.Calls != 1 || r.Errors != 1 {
		t.Errorf("the call that failed: %+v", r)
	}
	out := traced(t, work, "top", "--by", "client", "--order", "calls", "--interval", "1h")
	if got := strings.Split(out, "\n"); len(got) != 4 || !strings.HasSuffix(got[0], "CLIENT") || !strings.HasSuffix(got[1], "  root virsh") || !strings.HasSuffix(got[2], "  127.0.0.1") {
		t.Errorf("by client:\n%s", out)
	} else if f := strings.Fields(got[1]); f[len(f)-3] == "0.0%" {
		t.Errorf("nobody waited for a worker:\n%s", out)
	}
	info := func() { virsh(t, l.UnixURI(), "dominfo", "vm1") }
	if out := traced(t, info, "top", "--by", "domain", "--interval", "1h"); !strings.Contains(out, "  vm1\n") {
		t.Errorf("by domain:\n%s", out)
	}
}
