package export

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// calls are two calls that both sides see, the second of which fails and makes
// the daemon ask QEMU, and one that only the daemon sees, which sets a password.
func calls() []*event.Event {
	var all []*event.Event
	pair := func(e *event.Event, c *event.Call, took time.Duration) *event.Event {
		e.Call, e.Took = c, took
		all = append(all, e)
		return e
	}
	list := &event.Call{
		Prog: remote, Vers: 1, Proc: 66, PID: 4711, Client: client, Begin: begin, End: 1,
		Queue: 100 * time.Microsecond,
	}
	pair(message(1, event.ClientTx, 66, 0, 0, 0, nil), &event.Call{}, 0)
	pair(message(2, event.ServerTx, 66, 1, 0, 0, word(1, 0)), list, 400*time.Microsecond)
	pair(message(3, event.ClientRx, 66, 1, 0, 0, word(1, 0)), list, 1400*time.Microsecond)

	mono, _ := at(9)
	lookup := &event.Call{
		Prog: remote, Vers: 1, Proc: 22, Serial: 3, PID: 4711, Client: client, Begin: begin, End: 1, Args: word(5),
		ArgsLen: 4,
		Monitor: []event.Command{
			{
				Domain: "vm1", ID: "libvirt-1", Send: mono - 1e6, Took: 500 * time.Microsecond,
				Text: `{"execute":"query-status","id":"libvirt-1"}`, Reply: `{"return": {}, "id": "libvirt-1"}`,
			},
			{
				Domain: "vm1", ID: "libvirt-2", Send: mono - 4e5, Took: 100 * time.Microsecond,
				Text: `{"execute":"set_password","arguments":{"protocol":"vnc","password":"open sesame"},` +
					`"id":"libvirt-2"}`,
				Reply: `{"id": "libvirt-2", "error": {"class": "GenericError", "desc": "no VNC"}}`,
			},
			{Domain: "vm1", Send: mono - 1e5, Text: "\xff\x1b[2J"},
		},
	}
	pair(message(9, event.ServerTx, 22, 1, 1, 3, noDomain), lookup, 2*time.Millisecond)
	pair(message(10, event.ClientRx, 22, 1, 1, 3, noDomain), lookup, 4*time.Millisecond)

	other := &event.Call{Prog: remote, Vers: 1, Proc: 2, Serial: 4, PID: 815, Client: server, Begin: begin, End: 1}
	e := pair(message(11, event.ServerTx, 2, 1, 0, 4, nil), other, time.Millisecond)
	e.Peer = &event.Peer{UID: -1, Remote: "192.0.2.7;4000", SASLName: "alice", TLSName: "CN=a"}
	e.TID, e.Comm = 815, "libvirtd"
	return all
}

// TestSpans reads what is written as a collector's file receiver does.
func TestSpans(t *testing.T) {
	var file []byte
	requests := 0
	s := NewSpans(SpansConfig{Host: "hv1", Version: "1", Send: func(spans []*tracepb.ResourceSpans) (err error) {
		requests++
		file, err = AppendSpans(file, spans)
		return err
	}})
	events := calls()
	for i, e := range events {
		if err := s.Event(e); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			if err := s.Idle(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Idle(); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(file, []byte("\n")); n != requests || requests != 2 {
		t.Errorf("%d lines, %d requests", n, requests)
	}
	for _, secret := range []string{"sesame", "\x1b"} {
		if bytes.Contains(file, []byte(secret)) {
			t.Errorf("%q is in %s", secret, file)
		}
	}
	got := map[string]ptrace.Span{}
	var all, resources []string
	var decoder ptrace.JSONUnmarshaler
	for line := range bytes.Lines(file) {
		td, err := decoder.UnmarshalTraces(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, rs := range td.ResourceSpans().All() {
			resources = append(resources, said(rs.Resource().Attributes()))
			for _, span := range rs.ScopeSpans().At(0).Spans().All() {
				name := span.Kind().String() + " " + span.Name()
				got[name] = span
				all = append(all, fmt.Sprintf("%s %v %s %q {%s}", name,
					span.EndTimestamp().AsTime().Sub(span.StartTimestamp().AsTime()), span.Status().Code(),
					span.Status().Message(), said(span.Attributes())))
			}
		}
	}
	slices.Sort(resources)
	slices.Sort(all)
	const daemon, virsh = "host.name=hv1 os.type=linux process.executable.name=libvirtd process.pid=815 " +
		"service.instance.id=hv1/815 service.name=libvirtd",
		"host.name=hv1 os.type=linux process.command_line=/usr/bin/virsh domname 5 process.executable.name=virsh " +
			"process.pid=4711 service.instance.id=hv1/4711 service.name=virsh"
	if want := []string{virsh, virsh, daemon, daemon}; !slices.Equal(slices.Compact(resources),
		slices.Compact(slices.Sorted(slices.Values(want)))) {
		t.Errorf("resources\n%s", strings.Join(resources, "\n"))
	}
	golden(t, "spans.txt", strings.Join(all, "\n")+"\n")

	for child, parent := range map[string]string{
		"Client remote/auth_list": "", "Server remote/auth_list": "Client remote/auth_list",
		"Server remote/domain_lookup_by_id": "Client remote/domain_lookup_by_id",
		"Client qmp/query-status":           "Server remote/domain_lookup_by_id",
		"Client qmp/set_password":           "Server remote/domain_lookup_by_id",
		"Client qmp/_OTHER":                 "Server remote/domain_lookup_by_id", "Server remote/connect_close": "",
	} {
		c, p := got[child], pcommon.NewSpanIDEmpty()
		if parent != "" {
			p = got[parent].SpanID()
			if got[parent].TraceID() != c.TraceID() || c.StartTimestamp() < got[parent].StartTimestamp() ||
				c.EndTimestamp() > got[parent].EndTimestamp() {
				t.Errorf("%s is not within %s", child, parent)
			}
		}
		if c.ParentSpanID() != p || c.SpanID().IsEmpty() || c.TraceID().IsEmpty() {
			t.Errorf("%s is below %v, want %v", child, c.ParentSpanID(), p)
		}
	}
	if e := got["Server remote/auth_list"].Events(); e.Len() != 1 ||
		e.At(0).Timestamp()-got["Server remote/auth_list"].StartTimestamp() != 100000 {
		t.Error("the span has no event for when a worker began the call")
	}
}

// said writes attributes, sorted.
func said(m pcommon.Map) string {
	var all []string
	for k, v := range m.All() {
		all = append(all, k+"="+v.AsString())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
