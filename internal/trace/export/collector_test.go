package export

import (
	"bytes"
	"compress/gzip"
	"context"
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

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/collector"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/livetest"
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
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
	r.URL = srv.URL
	return r
}

func (r *receiver) take(req *http.Request) error {
	if req.Method != http.MethodPost || req.URL.Path != "/v1/traces" ||
		req.Header.Get("Content-Type") != "application/x-protobuf" || req.Header.Get("Content-Encoding") != "gzip" {
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

// of returns the spans that a service reports under a name.
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
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	do := func() {
		posterntest.Virsh(t, l.TCPURI(), "suspend", "vm1")
		_, _ = posterntest.VirshAt(l.UnixURI(), "qemu-monitor-command", "vm1",
			`{"execute":"set_password","arguments":{"protocol":"vnc","password":"sesame-open"}}`)
		_, _ = posterntest.VirshAt(l.UnixURI(), "dominfo", "nope")
	}
	recorded := recordTrace(t, capture.Config{What: capture.RPC | capture.Monitor}, do)
	posterntest.Virsh(t, l.UnixURI(), "resume", "vm1")
	t.Run("live", func(t *testing.T) { checkSpans(t, l, sendLive(t, do)) })
	t.Run("recorded", func(t *testing.T) { checkSpans(t, l, sendRecorded(t, recorded)) })
	t.Run("no collector", func(t *testing.T) {
		x := Recording{Format: FormatOTLP, Host: "hv1", Collector: connect(t,
			fmt.Sprintf("http://127.0.0.1:%d", posterntest.FreePort(t)))}
		_, _, err := x.Write(t.Context(), bytes.NewReader(recorded), nil)
		if postern.CodeOf(err) != postern.Unavailable || !strings.Contains(err.Error(),
			"the collector does not take spans") {
			t.Errorf("%v", err)
		}
	})
}

func connect(t *testing.T, address string) Collector {
	t.Helper()
	c, err := collector.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sendLive sends the spans of a trace while do runs.
func sendLive(t *testing.T, do func()) *receiver {
	r := startReceiver(t)
	defer posterntest.TraceAlone(t)()
	live := Live{Collector: connect(t, r.URL), Host: "hv1", Version: "1", Warn: func(text string) { t.Error(text) }}
	livetest.Run(t, do, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
		c := capture.Config{What: capture.RPC | capture.Monitor, Tree: true}
		sum, sent, dropped, err := live.Trace(ctx, c, ready)
		if sent != len(r.spans) || dropped > 0 {
			t.Errorf("%d spans sent, %d dropped; %d came", sent, dropped, len(r.spans))
		}
		return sum, err
	})
	return r
}

// sendRecorded sends the spans of a recording, and writes them to a file.
func sendRecorded(t *testing.T, recorded []byte) *receiver {
	r := startReceiver(t)
	var file bytes.Buffer
	x := Recording{Format: FormatOTLP, Host: "hv1", Collector: connect(t, r.URL)}
	_, written, err := x.Write(t.Context(), bytes.NewReader(recorded), &file)
	if want := fmt.Sprintf("%d spans sent", len(r.spans)); err != nil || written != want {
		t.Errorf("%q, not %q: %v", written, want, err)
	}
	if bytes.Contains(file.Bytes(), []byte("sesame")) ||
		!bytes.Contains(file.Bytes(), []byte(`"name":"remote/domain_suspend"`)) {
		t.Errorf("the file: %.500s", file.String())
	}
	return r
}

func checkSpans(t *testing.T, l *posterntest.Libvirtd, r *receiver) {
	client, server, stop := r.of("virsh", "remote/domain_suspend"), r.of("libvirtd", "remote/domain_suspend"),
		r.of("libvirtd", "qmp/stop")
	if len(client) != 1 || len(server) != 1 || len(stop) != 1 {
		t.Fatalf("%d, %d and %d spans of %d", len(client), len(server), len(stop), len(r.spans))
	}
	c, s, q := client[0], server[0], stop[0]
	if c.Kind != tracepb.Span_SPAN_KIND_CLIENT || len(c.ParentSpanId) != 0 ||
		s.Kind != tracepb.Span_SPAN_KIND_SERVER || !bytes.Equal(s.ParentSpanId, c.SpanId) ||
		!bytes.Equal(q.ParentSpanId, s.SpanId) || !bytes.Equal(c.TraceId, s.TraceId) ||
		!bytes.Equal(c.TraceId, q.TraceId) {
		t.Errorf("not one trace: %v\n%v\n%v", c, s, q)
	}
	if c.StartTimeUnixNano > s.StartTimeUnixNano || s.StartTimeUnixNano > q.StartTimeUnixNano ||
		q.EndTimeUnixNano > s.EndTimeUnixNano || s.EndTimeUnixNano > c.EndTimeUnixNano {
		t.Errorf("not within each other: %v\n%v\n%v", c, s, q)
	}
	if a := texts(s.Attributes); s.resource["host.name"] != "hv1" || a["rpc.system"] != "libvirt" ||
		a["rpc.service"] != "remote" || a["libvirt.domain.name"] != "vm1" ||
		a["network.transport"] != "tcp" || a["client.address"] != "127.0.0.1" {
		t.Errorf("%v of %v", a, s.resource)
	}
	failed := r.of("libvirtd", "remote/domain_lookup_by_name")
	if len(failed) == 0 {
		t.Fatal("no failed call")
	}
	last := failed[len(failed)-1]
	if a := texts(last.Attributes); last.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR ||
		a["error.type"] != "no_domain" || a["user.name"] != "root" ||
		!strings.Contains(last.Status.Message, "no domain with matching name 'nope'") {
		t.Errorf("%v %v", last.Status, a)
	}
	if len(r.of("libvirtd", "qmp/set_password")) != 1 || bytes.Contains(r.bytes, []byte("sesame")) {
		t.Error("a password is shown, or what set it is not")
	}
}
