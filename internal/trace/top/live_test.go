package top_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/livetest"
	"github.com/postern-project/postern/internal/trace/top"
)

// counted returns what is shown while do runs.
func counted(t *testing.T, c top.Config, do func()) string {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	c.Interval = time.Hour
	var out bytes.Buffer
	livetest.Run(t, do, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
		return c.Trace(ctx, capture.Config{}, strings.NewReader(""), &out, ready)
	})
	return out.String()
}

// TestCallsAreCounted counts what virsh calls: each call once, though client and daemon
// are both watched.
func TestCallsAreCounted(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	work := func() {
		for range 3 {
			posterntest.Virsh(t, l.UnixURI(), "domname", "1")
		}
		if out, err := posterntest.VirshAt(l.TCPURI(), "dominfo", "nosuch"); err == nil {
			t.Errorf("virsh found nosuch: %s", out)
		}
	}
	t.Run("by procedure", func(t *testing.T) {
		byProcedure(t, counted(t, top.Config{By: "procedure", Order: "time", JSON: true}, work))
	})
	t.Run("by client", func(t *testing.T) {
		byClient(t, counted(t, top.Config{By: "client", Order: "calls"}, work))
	})
	t.Run("by domain", func(t *testing.T) {
		info := func() { posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1") }
		if out := counted(t, top.Config{By: "domain", Order: "time"}, info); !strings.Contains(out, "  vm1\n") {
			t.Errorf("got\n%s", out)
		}
	})
}

func byProcedure(t *testing.T, out string) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var d top.Table
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &d); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
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
}

func byClient(t *testing.T, out string) {
	got := strings.Split(out, "\n")
	if len(got) != 4 || !strings.HasSuffix(got[0], "CLIENT") || !strings.HasSuffix(got[1], "  root virsh") ||
		!strings.HasSuffix(got[2], "  127.0.0.1") {
		t.Fatalf("got\n%s", out)
	}
	if f := strings.Fields(got[1]); f[len(f)-3] == "0.0%" {
		t.Errorf("no call waited for a worker:\n%s", out)
	}
}

func TestWhatCannotBeCounted(t *testing.T) {
	good := top.Config{By: "procedure", Order: "time", Interval: time.Second}
	for name, change := range map[string]func(*top.Config){
		"by": func(c *top.Config) { c.By = "age" }, "order": func(c *top.Config) { c.Order = "age" },
		"interval": func(c *top.Config) {
			c.Interval = time.Millisecond
		}, "count": func(c *top.Config) { c.Count = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			_, err := c.Trace(t.Context(), capture.Config{}, nil, nil, func(*capture.Session) { t.Error("it begins") })
			if postern.CodeOf(err) != postern.Invalid {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("no libvirt", func(t *testing.T) {
		var out bytes.Buffer
		none := capture.Config{Paths: []string{t.TempDir()}}
		if _, err := good.Trace(t.Context(), none, nil, &out, func(*capture.Session) {}); err == nil || out.Len() > 0 {
			t.Errorf("%v, shows %s", err, out.String())
		}
	})
}
