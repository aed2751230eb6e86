package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver takes spans by OTLP over HTTPS. No collector is packaged in Debian.
type receiver struct {
	URL   string
	mu    sync.Mutex
	bytes []byte
	spans []*received
}

// received is a span with what its process is.
type received struct {
	*tracepb.Span
	resource map[string]string
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.take(req); err != nil {
			t.Error(err)
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
	r.URL = srv.URL
	return r
}

func (r *receiver) take(req *http.Request) error {
	if req.Method != http.MethodPost || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" || req.Header.Get("Content-Encoding") != "gzip" {
		return errors.New("no request of OTLP: " + req.Method + " " + req.URL.Path)
	}
	z, err := gzip.NewReader(req.Body)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	var m coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(b, &m); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes = append(r.bytes, b...)
	for _, rs := range m.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.spans = append(r.spans, &received{s, texts(rs.Resource.Attributes)})
			}
		}
	}
	return nil
}

func texts(all []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range all {
		m[kv.Key] = kv.Value.GetStringValue()
	}
	return m
}

// of returns the spans that are told of by a service under a name.
func (r *receiver) of(service, name string) []*received {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*received
	for _, s := range r.spans {
		if s.resource["service.name"] == service && s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

// TestTraceToCollector sends what a real libvirtd does to a collector, live and of a
// recording.
func TestTraceToCollector(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	virsh(t, l.UnixURI(), "start", "vm1")
	do := func() {
		virsh(t, l.TCPURI(), "suspend", "vm1")
		_, _ = posterntest.VirshAt(l.UnixURI(), "qemu-monitor-command", "vm1", `{"execute":"set_password","arguments":{"protocol":"vnc","password":"sesame-open"}}`)
		_, _ = posterntest.VirshAt(l.UnixURI(), "dominfo", "nope")
	}
	file := filepath.Join(t.TempDir(), "trace")
	traced(t, do, "record", file)
	export := func(args ...string) (int, string) {
		var errs bytes.Buffer
		code := run(t.Context(), append([]string{"trace", "export", "--format", "otlp", file}, args...), strings.NewReader(""), &errs, &errs)
		return code, errs.String()
	}

	live := startReceiver(t)
	virsh(t, l.UnixURI(), "resume", "vm1")
	traced(t, do, "rpc", "--with", "qemu", "--otlp", live.URL, "--host", "hv1")
	sent := startReceiver(t)
	out := filepath.Join(t.TempDir(), "spans.jsonl")
	if code, errs := export("--to", sent.URL, "-o", out, "--host", "hv1"); code != 0 || !strings.Contains(errs, " spans sent") {
		t.Errorf("export: exit %d: %s", code, errs)
	}
	if b, err := os.ReadFile(out); err != nil || bytes.Contains(b, []byte("sesame")) || !bytes.Contains(b, []byte(`"name":"remote/domain_suspend"`)) {
		t.Errorf("the file: %v: %.500s", err, b)
	}
	for name, r := range map[string]*receiver{"live": live, "recorded": sent} {
		t.Run(name, func(t *testing.T) { checkSpans(t, l, r) })
	}

	var errs bytes.Buffer
	if code := run(t.Context(), []string{"trace", "rpc", "--otlp", live.URL, "--json"}, strings.NewReader(""), &errs, &errs); code != 2 || !strings.Contains(errs.String(), "--json") {
		t.Errorf("--otlp --json: exit %d: %s", code, errs.String())
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "")
	for _, c := range []struct{ address, says string }{
		{"http://192.0.2.7:4318", "hint: use https"},
		{"collector:4318", "is not an address"},
		{fmt.Sprintf("http://127.0.0.1:%d", posterntest.FreePort(t)), "the collector does not take spans"},
	} {
		if code, errs := export("--to", c.address); code == 0 || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d: %s", c.address, code, errs)
		}
	}
}

func checkSpans(t *testing.T, l *posterntest.Libvirtd, r *receiver) {
	client, server, stop := r.of("virsh", "remote/domain_suspend"), r.of("libvirtd", "remote/domain_suspend"), r.of("libvirtd", "qmp/stop")
	if len(client) != 1 || len(server) != 1 || len(stop) != 1 {
		t.Fatalf("%d, %d and %d spans of %d", len(client), len(server), len(stop), len(r.spans))
	}
	c, s, q := client[0], server[0], stop[0]
	if c.Kind != tracepb.Span_SPAN_KIND_CLIENT || len(c.ParentSpanId) != 0 || s.Kind != tracepb.Span_SPAN_KIND_SERVER || !bytes.Equal(s.ParentSpanId, c.SpanId) ||
		!bytes.Equal(q.ParentSpanId, s.SpanId) || !bytes.Equal(c.TraceId, s.TraceId) || !bytes.Equal(c.TraceId, q.TraceId) {
		t.Errorf("not one trace: %v\n%v\n%v", c, s, q)
	}
	if c.StartTimeUnixNano > s.StartTimeUnixNano || s.StartTimeUnixNano > q.StartTimeUnixNano || q.EndTimeUnixNano > s.EndTimeUnixNano || s.EndTimeUnixNano > c.EndTimeUnixNano {
		t.Errorf("not within each other: %v\n%v\n%v", c, s, q)
	}
	if a := texts(s.Attributes); s.resource["host.name"] != "hv1" || a["rpc.system"] != "libvirt" || a["rpc.service"] != "remote" || a["libvirt.domain.name"] != "vm1" ||
		a["network.transport"] != "tcp" || a["client.address"] != "127.0.0.1" {
		t.Errorf("%v of %v", a, s.resource)
	}
	failed := r.of("libvirtd", "remote/domain_lookup_by_name")
	if len(failed) == 0 {
		t.Fatal("no failed call")
	}
	last := failed[len(failed)-1]
	if a := texts(last.Attributes); last.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || a["error.type"] != "no_domain" || a["user.name"] != "root" ||
		!strings.Contains(last.Status.Message, "no domain with matching name 'nope'") {
		t.Errorf("%v %v", last.Status, a)
	}
	if len(r.of("libvirtd", "qmp/set_password")) != 1 || bytes.Contains(r.bytes, []byte("sesame")) {
		t.Error("a password is told, or what set it is not")
	}
}
