package export

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// perfettoSchema are the messages of Perfetto's published schema that a trace is made of,
// with the types and numbers that their fields have there: protos/perfetto/trace/*.proto.
var perfettoSchema = map[string]string{
	"Trace": "repeated TracePacket packet 1",
	"TracePacket": "uint64 timestamp 8, uint32 timestamp_clock_id 58, TrackEvent track_event 11, " +
		"TrackDescriptor track_descriptor 60, ClockSnapshot clock_snapshot 6, uint32 trusted_packet_sequence_id 10",
	"ClockSnapshot": "repeated Clock clocks 1, int32 primary_trace_clock 2",
	"Clock":         "uint32 clock_id 1, uint64 timestamp 2",
	"TrackDescriptor": "uint64 uuid 1, uint64 parent_uuid 5, string name 2, ProcessDescriptor process 3, " +
		"ThreadDescriptor thread 4",
	"ProcessDescriptor": "int32 pid 1, repeated string cmdline 2, string process_name 6",
	"ThreadDescriptor":  "int32 pid 1, int32 tid 2, string thread_name 5",
	"TrackEvent": "repeated string categories 22, string name 23, int32 type 9, uint64 track_uuid 11, " +
		"repeated DebugAnnotation debug_annotations 4, repeated fixed64 flow_ids 47",
	"DebugAnnotation": "string name 10, bool bool_value 2, uint64 uint_value 3, int64 int_value 4, string " +
		"string_value 6",
}

// schema makes a file of those messages.
func schema(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("perfetto.proto"), Syntax: proto.String("proto2")}
	for name, fields := range perfettoSchema {
		m := &descriptorpb.DescriptorProto{Name: proto.String(name)}
		for field := range strings.SplitSeq(fields, ", ") {
			m.Field = append(m.Field, fieldOf(t, field))
		}
		file.MessageType = append(file.MessageType, m)
	}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func fieldOf(t *testing.T, text string) *descriptorpb.FieldDescriptorProto {
	t.Helper()
	f := &descriptorpb.FieldDescriptorProto{Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	if rest, repeated := strings.CutPrefix(text, "repeated "); repeated {
		text, f.Label = rest, descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	}
	var typ, name string
	var number int32
	if _, err := fmt.Sscan(text, &typ, &name, &number); err != nil {
		t.Fatal(err)
	}
	f.Name, f.Number = &name, &number
	if n, scalar := descriptorpb.FieldDescriptorProto_Type_value["TYPE_"+strings.ToUpper(typ)]; scalar {
		f.Type = descriptorpb.FieldDescriptorProto_Type(n).Enum()
	} else {
		f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String("."+typ)
	}
	return f
}

// unknown returns the fields of a message, and of those in it, that the schema has not.
func unknown(m protoreflect.Message) (all []byte) {
	all = append(all, m.GetUnknown()...)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() != protoreflect.MessageKind {
			return true
		}
		if !f.IsList() {
			all = append(all, unknown(v.Message())...)
			return true
		}
		for i := range v.List().Len() {
			all = append(all, unknown(v.List().Get(i).Message())...)
		}
		return true
	})
	return all
}

// field returns a field of a message by its name.
func field(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}

// perfettoReader reads a trace back as a viewer does.
type perfettoReader struct {
	names   map[uint64]string   // of tracks
	parents map[uint64]uint64   // of tracks
	open    map[uint64][]string // slices that have begun, by track
	events  []perfettoEvent     // in order of time
	flows   map[uint64][]string // slices by flow
}

type perfettoEvent struct {
	at    uint64
	track uint64
	typ   int64
	text  string
}

func readPerfetto(t *testing.T, data []byte) *perfettoReader {
	t.Helper()
	trace := dynamicpb.NewMessage(schema(t).Messages().ByName("Trace"))
	if err := proto.Unmarshal(data, trace); err != nil {
		t.Fatal(err)
	}
	if u := unknown(trace); len(u) > 0 {
		t.Fatalf("fields that the schema does not have: %x", u)
	}
	r := &perfettoReader{
		names: map[uint64]string{}, parents: map[uint64]uint64{}, open: map[uint64][]string{},
		flows: map[uint64][]string{},
	}
	packets := field(trace, "packet").List()
	for i := range packets.Len() {
		r.packet(t, packets.Get(i).Message())
	}
	slices.SortStableFunc(r.events, func(a, b perfettoEvent) int { return cmp.Compare(a.at, b.at) })
	return r
}

func (r *perfettoReader) packet(t *testing.T, p protoreflect.Message) {
	t.Helper()
	if field(p, "trusted_packet_sequence_id").Uint() == 0 {
		t.Error("a packet of no sequence")
	}
	if d := field(p, "track_descriptor").Message(); d.IsValid() {
		name := field(d, "name").String()
		if proc := field(d, "process").Message(); proc.IsValid() {
			name = fmt.Sprintf("%s[%d]", field(proc, "process_name").String(), field(proc, "pid").Int())
		}
		if th := field(d, "thread").Message(); th.IsValid() {
			name = fmt.Sprintf("thread %s[%d]", field(th, "thread_name").String(), field(th, "tid").Int())
		}
		id := field(d, "uuid").Uint()
		r.names[id], r.parents[id] = name, field(d, "parent_uuid").Uint()
	}
	e := field(p, "track_event").Message()
	if !e.IsValid() {
		return
	}
	if field(p, "timestamp_clock_id").Uint() != 3 {
		t.Error("a time that is not of the monotonic clock")
	}
	text := field(e, "name").String()
	for _, list := range []protoreflect.Name{"categories", "debug_annotations"} {
		l := field(e, list).List()
		for i := range l.Len() {
			if list == "categories" {
				text += " " + l.Get(i).String()
				continue
			}
			a := l.Get(i).Message()
			text += " " + field(a, "name").String() + "=" + field(a, "string_value").String()
		}
	}
	flows := field(e, "flow_ids").List()
	for i := range flows.Len() {
		r.flows[flows.Get(i).Uint()] = append(r.flows[flows.Get(i).Uint()], text)
	}
	r.events = append(r.events, perfettoEvent{
		field(p, "timestamp").Uint(), field(e, "track_uuid").Uint(), field(e, "type").Int(), text,
	})
}

// place returns the names of a track and of those above it.
func (r *perfettoReader) place(track uint64) string {
	name := r.names[track]
	if up := r.parents[track]; up != 0 {
		return r.place(up) + "/" + name
	}
	return name
}

// TestPerfetto reads what is written by the published schema, and finds the slices of
// calls within their tracks, none of which ends before what it contains.
func TestPerfetto(t *testing.T) {
	var file bytes.Buffer
	p := NewPerfetto(&file)
	events := calls()
	open := message(12, event.CallOpen, 12, 0, 0, 9, nil)
	open.PID, open.TID, open.Comm, open.Took = 815, 816, "rpc-libvirtd", 3
	open.Call = &event.Call{Prog: remote, Vers: 1, Proc: 12, PID: 815, Client: server, Begin: begin, Served: true}
	events = append(events, open,
		other(12, event.MonitorSend, 815, []uint64{7, 1}, "", `{"execute":"query-status","id":"libvirt-9"}`),
		other(13, event.MonitorReply, 815, []uint64{7, 1}, "", `{"return": {}, "id": "libvirt-9"}`),
		other(13, event.MonitorSend, 815, []uint64{7, 1}, "", `{"execute":"stop","id":"libvirt-10"}`),
		other(13, event.MonitorEvent, 815, []uint64{7, 1}, "", `{"event":"STOP","data":{}}`),
		other(14, event.Lost, 815, []uint64{5}))
	events[len(events)-4].Took = 1e6
	for _, e := range events {
		if err := p.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.finish(); err != nil {
		t.Fatal(err)
	}
	r := readPerfetto(t, file.Bytes())
	var lines []string
	for _, e := range r.events {
		if r.names[e.track] == "" {
			t.Errorf("%s is in no track", e.text)
		}
		depth := len(r.open[e.track])
		switch e.typ {
		case sliceBegin:
			r.open[e.track] = append(r.open[e.track], e.text)
		case sliceEnd:
			if depth == 0 {
				t.Fatalf("a slice of %s ends that has not begun", r.place(e.track))
			}
			r.open[e.track] = r.open[e.track][:depth-1]
			continue
		}
		lines = append(lines, fmt.Sprintf("%s %d %s", r.place(e.track), depth, e.text))
	}
	golden(t, "perfetto.txt", strings.Join(lines, "\n")+"\n")
	left := 0
	for _, slices := range r.open {
		left += len(slices)
	}
	if left != 2 || !strings.Contains(fmt.Sprint(r.open), "domain_destroy") {
		t.Errorf("without an end: %v", r.open)
	}
	pairs := 0
	for _, of := range r.flows {
		if len(of) == 2 {
			pairs++
		}
	}
	if pairs != 2 {
		t.Errorf("%d calls lead from client to daemon: %v", pairs, r.flows)
	}
	for _, secret := range []string{"sesame", "\x1b"} {
		if strings.Contains(strings.Join(lines, "\n"), secret) {
			t.Errorf("%q is in the trace", secret)
		}
	}
}

// TestFolded writes a line a stack.
func TestFolded(t *testing.T) {
	var p Profile
	for i, symbol := range []string{"send", "send", "a;b\n"} {
		e := message(i, event.ServerTx, 22, 1, 0, 1, nil)
		e.Frames, e.Took = frames(1<<20, symbol), 5
		if err := p.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	const stack = "libvirtd;0xdeac;libvirt.so+0x2000;"
	var count, took bytes.Buffer
	for w, byTime := range map[*bytes.Buffer]bool{&count: false, &took: true} {
		if err := p.WriteFolded(w, byTime); err != nil {
			t.Fatal(err)
		}
	}
	const kind = ";[remote.domain_lookup_by_id reply] "
	want := stack + `a:b\n` + kind + "1\n" + stack + "send" + kind + "2\n"
	if count.String() != want {
		t.Errorf("got\n%swant\n%s", count.String(), want)
	}
	if got := strings.NewReplacer(" 10\n", " 2\n", " 5\n", " 1\n").Replace(took.String()); got != want {
		t.Errorf("by time\n%s", took.String())
	}
}
