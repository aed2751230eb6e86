package server

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/timeline"
)

// monitored is a server with a guarded site and a listener for its monitoring.
type monitored struct {
	*running
	https, port int
}

const monitoredConfig = `{
	http_port %d
	https_port %d
	admin off
	postern {
		metrics 127.0.0.1:%d
%s	}
}
site.localhost {
	tls internal
	require {
		group staff
	}
	respond passed
}
%s`

func startMonitored(t *testing.T, options, sites string, change func(*Options)) *monitored {
	t.Helper()
	m := &monitored{https: posterntest.FreePort(t), port: posterntest.FreePort(t)}
	conf := filepath.Join(t.TempDir(), "Caddyfile")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, monitoredConfig, posterntest.FreePort(t), m.https, m.port, options,
		sites), 0o600))
	m.running = startServer(t, func(o *Options) {
		o.Config = conf
		if change != nil {
			change(o)
		}
	})
	return m
}

// get asks the listener for the monitoring.
func (m *monitored) get(path string) (status int, body string) {
	m.t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", m.port, path))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(m.t, err)
	return resp.StatusCode, string(text)
}

// visit asks a site for a path, without a certificate, and returns 0 if it does not answer,
// as before it has its own.
func (m *monitored) visit(site, path string) (status int) {
	m.t.Helper()
	return m.visitPort(m.https, site, path)
}

// visitPort does so at another port than that of the configuration.
func (m *monitored) visitPort(port int, site, path string) (status int) {
	m.t.Helper()
	return m.visitAs(nil, port, site, path)
}

// holder adds a person with a client certificate, and returns what asks with it.
func (m *monitored) holder(name string, groups ...string) func(port int, site, path string) int {
	m.t.Helper()
	st := m.open()
	must(m.t, st.Store.People().AddPerson(m.t.Context(), postern.Person{Name: name, Groups: groups}))
	authority, err := ca.Open(m.t.Context(), ca.Config{}, st.Store.CA())
	must(m.t, err)
	c, err := authority.IssueClient(m.t.Context(), ca.ClientRequest{Person: name, Label: "test"})
	must(m.t, err)
	shown := []tls.Certificate{{Certificate: [][]byte{c.Leaf.Raw, c.Chain[0].Raw}, PrivateKey: c.Key}}
	return func(port int, site, path string) int { return m.visitAs(shown, port, site, path) }
}

func (m *monitored) visitAs(shown []tls.Certificate, port int, site, path string) (status int) {
	m.t.Helper()
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: site, Certificates: shown},
	}}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet,
		fmt.Sprintf("https://127.0.0.1:%d%s", port, path), nil)
	must(m.t, err)
	req.Host = site
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// scrape returns each series with its value.
func (m *monitored) scrape() map[string]string {
	m.t.Helper()
	_, text := m.get("/metrics")
	series := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			series[name] = value
		}
	}
	return series
}

// TestServerIsMonitored scrapes a server that was asked for a guarded page, has promtool
// judge the scrape, and evaluates over it the rules and the dashboard that are shipped.
func TestServerIsMonitored(t *testing.T) {
	m := startMonitored(t, "", "", nil)
	for range 3 {
		m.await(func() bool { return m.visit("site.localhost", "/") == http.StatusForbidden })
	}
	must(t, m.open().Store.Timeline().KeepWitnessed(t.Context(), []timeline.Witnessed{{Name: "w1", Time: time.Now()}},
		""))
	refused := `postern_timeline_events_total{kind="gate.refused",outcome="refused"}`
	m.await(func() bool { return m.scrape()[refused] != "" })
	series := m.scrape()
	if n := series[`postern_decisions_total{reason="none-shown"}`]; n != "3" {
		t.Error(n, "requests were refused for want of a certificate, not 3")
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if status, body := m.get(path); status != http.StatusOK {
			t.Error(path, status, body)
		}
	}
	openMetrics(m)
	promtool(t, "check metrics of the program itself", ownMetrics(m), "check", "metrics")
	rules := "../../packaging/prometheus/postern.rules.yml"
	promtool(t, "check the rules", "", "check", "rules", rules)
	text, err := os.ReadFile(rules)
	must(t, err)
	known(t, series, "the rules", string(text))
	evaluate(t, series, rules, string(text))
	dashboard(t, series)
}

// openMetrics fails unless the scrape is OpenMetrics where that is asked for.
func openMetrics(m *monitored) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet,
		fmt.Sprintf("http://127.0.0.1:%d/metrics", m.port), nil)
	must(m.t, err)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(req)
	must(m.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(m.t, err)
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") ||
		!strings.HasSuffix(string(text), "# EOF\n") {
		m.t.Errorf("not OpenMetrics: %s", kind)
	}
}

// ownMetrics returns what a scrape has besides what Prometheus' library says of the process.
func ownMetrics(m *monitored) string {
	_, text := m.get("/metrics")
	var own strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "postern_") {
			own.WriteString(line)
		}
	}
	return own.String()
}

func promtool(t *testing.T, what, input string, args ...string) {
	t.Helper()
	cmd := exec.Command(posterntest.Need(t, "promtool"), args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", what, err, out)
	}
}

// known fails unless each metric that a text names is one of the scrape.
func known(t *testing.T, series map[string]string, what, text string) {
	t.Helper()
	names := map[string]bool{}
	for s := range series {
		name, _, _ := strings.Cut(s, "{")
		names[name] = true
	}
	for _, name := range regexp.MustCompile(`postern_[a-z_]+`).FindAllString(text, -1) {
		if !names[name] {
			t.Errorf("%s name %s, which the server does not serve", what, name)
		}
	}
}

// firing has for each alert the series that differ from those of a server with nothing
// wrong when it fires, as promtool writes them.
var firing = map[string]map[string]string{
	"PosternDown":                {`up{job="postern"}`: "0x240"},
	"PosternDatabaseUnavailable": {"postern_database_up": "0x240"},
	"PosternCodesNotAccepted":    {"postern_codes_accepted": "0x240"},
	"PosternTimelineUnwritten":   {"postern_timeline_unwritten_events": "5x240"},
	"PosternWritesFail":          {"postern_write_failures_total": "0+1x240"},
	"PosternWritesSlow":          {`postern_write_seconds_bucket{le="+Inf"}`: "0+600000x240"},
	"PosternDiskFilling":         {"postern_state_free_bytes": "500000000x240"},
	"PosternCAEnds":              {`postern_ca_end_timestamp_seconds{ca="root"}`: "86400x240"},
	"PosternRefusals":            {`postern_decisions_total{reason="none-shown"}`: "0+6000x240"},
	"PosternCodesRefused":        {`postern_codes_total{outcome="refused"}`: "0+600x240"},
	"PosternMailWaits":           {"postern_mail_queue": "3x240"},
	"PosternAlertsWait":          {"postern_alert_queue": "3x240"},
	"PosternAgentLate":           {"postern_agents_late": "1x240"},
	"PosternAgentLosses":         {"postern_agent_lost_events_total": "0+5x240"},
	"PosternWitnessSilent":       {`postern_witness_up{witness="w1"}`: "0x240"},
}

// evaluate has promtool evaluate the rules over a scrape: none fires, and each where its
// series differ, alone.
func evaluate(t *testing.T, series map[string]string, rules, text string) {
	t.Helper()
	series = maps.Clone(series)
	series[`up{job="postern"}`] = "1"
	series["postern_state_free_bytes"] = "50000000000" // whatever this host has
	series[`postern_witness_up{witness="w1"}`] = "1"
	alerts := regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(text, -1)
	if len(alerts) != len(firing) {
		t.Errorf("%d alerts and %d tests of them", len(alerts), len(firing))
	}
	absolute, err := filepath.Abs(rules)
	must(t, err)
	type sample struct {
		Labels string `json:"labels"`
		Value  int    `json:"value"`
	}
	var tests []any
	add := func(alert string, changed map[string]string) {
		var input []map[string]string
		for _, s := range slices.Sorted(maps.Keys(series)) {
			if !strings.HasPrefix(s, "postern_") && !strings.HasPrefix(s, "up{") {
				continue
			}
			values, ok := changed[s]
			if !ok {
				values = series[s] + "x240"
			}
			input = append(input, map[string]string{"series": s, "values": values})
		}
		fires := []sample{}
		if alert != "" {
			fires = []sample{{fmt.Sprintf(`{alertname="%s"}`, alert), 1}}
		}
		tests = append(tests, map[string]any{
			"name": alert, "interval": "1m", "input_series": input, "promql_expr_test": []any{map[string]any{
				"expr":      `count by (alertname) (ALERTS{alertstate="firing"})`,
				"eval_time": "3h", "exp_samples": fires,
			}},
		})
	}
	add("", nil)
	for _, a := range alerts {
		for s := range firing[a[1]] {
			if _, ok := series[s]; !ok {
				t.Errorf("%s: the server does not serve %s", a[1], s)
			}
		}
		add(a[1], firing[a[1]])
	}
	body, err := json.Marshal(map[string]any{"rule_files": []string{absolute}, "tests": tests})
	must(t, err)
	file := filepath.Join(t.TempDir(), "tests.yml")
	must(t, os.WriteFile(file, body, 0o600))
	promtool(t, "evaluate the rules", "", "test", "rules", file)
}

// dashboard has promtool parse each expression of the dashboard.
func dashboard(t *testing.T, series map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../../packaging/grafana/postern.json")
	must(t, err)
	known(t, series, "the dashboard's expressions", string(text))
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(text, &d))
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), expr})
		}
	}
	body, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	must(t, err)
	file := filepath.Join(t.TempDir(), "panels.yml")
	must(t, os.WriteFile(file, body, 0o600))
	promtool(t, "parse the dashboard", "", "check", "rules", file)
}
