// Package export writes what a trace saw for other programs: stacks as pprof profiles and
// folded lines, calls as tracks for Perfetto,
// messages as pcapng files for Wireshark, and calls as OpenTelemetry spans, into a file or
// to a [Collector] while the trace runs.
//
// Secrets are masked in spans; pcapng has each message as it was captured.
package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// spanSchema is the version of OpenTelemetry's names that spans use. Beside its
// rpc.system.name they have the older rpc.system and rpc.service.
const spanSchema = "https://opentelemetry.io/schemas/1.43.0"

// SpansConfig says how [Spans] are made.
type SpansConfig struct {
	Host    string // where the processes run
	Version string // of the program that makes the spans
	// Send takes spans, gathered by process.
	Send func([]*tracepb.ResourceSpans) error
}

// Spans makes an OpenTelemetry span of each call, on either side: when its reply is
// seen, or when it is known that there will be none. Below the daemon's span is one of
// each monitor command that was sent for the call. A call that both sides saw is one
// trace. Identifiers follow from what a call is: of one recording they are the same
// each time. Secrets are masked. It is a sink of a session, not safe for concurrent
// use.
type Spans struct {
	c     SpansConfig
	dec   libvirt.Decoder
	procs map[int]traced
	batch map[int]*tracepb.ResourceSpans
	spans int // in batch
}

// traced is what is known of a process.
type traced struct{ name, command string }

const (
	maxTraced   = 1 << 13
	spansAtOnce = 256
	maxSpanText = 1000 // bytes of arguments and errors
)

// NewSpans returns a sink without spans.
func NewSpans(c SpansConfig) *Spans {
	return &Spans{c: c, procs: map[int]traced{}, batch: map[int]*tracepb.ResourceSpans{}}
}

// Event makes spans of a reply, or of a call that has none.
func (s *Spans) Event(e *event.Event) error {
	s.learn(e)
	c := e.Call
	if c == nil || e.Took <= 0 || !ends(e) {
		return nil
	}
	ids := identify(s.c.Host, c)
	span := s.call(e, &ids)
	s.add(e, span)
	if e.Kind == event.ServerTx {
		for i := range c.Monitor {
			s.add(e, s.command(e, &ids, i))
		}
	}
	if s.spans >= spansAtOnce {
		return s.Idle()
	}
	return nil
}

// ends reports whether nothing more is seen of the event's call.
func ends(e *event.Event) bool {
	switch e.Kind {
	case event.ServerTx, event.ClientRx:
		return e.Call.End != 0
	}
	return e.Kind == event.CallOpen || e.Kind == event.CallUnanswered
}

// Idle sends the batch.
func (s *Spans) Idle() error {
	if s.spans == 0 {
		return nil
	}
	all := make([]*tracepb.ResourceSpans, 0, len(s.batch))
	for _, pid := range slices.Sorted(maps.Keys(s.batch)) {
		all = append(all, s.batch[pid])
	}
	clear(s.batch)
	s.spans = 0
	return s.c.Send(all)
}

// learn notes the name of a process, preferably that of its main thread, and the command
// line of a client, which the daemon's events have.
func (s *Spans) learn(e *event.Event) {
	if e.Kind == event.ClientNew {
		delete(s.procs, e.PID) // another process may have had the number
	}
	p := s.procs[e.PID]
	if p.name == "" || e.TID == e.PID {
		p.name = e.Process()
		s.keep(e.PID, p)
	}
	if c := e.Peer; c != nil && e.Kind.Server() && c.PID != 0 && c.Command != "" {
		p := s.procs[c.PID]
		p.command = c.Command
		if p.name == "" {
			p.name = format.Program(c.Command)
		}
		s.keep(c.PID, p)
	}
}

func (s *Spans) keep(pid int, p traced) {
	if s.procs[pid] == p {
		return
	}
	if len(s.procs) >= maxTraced {
		clear(s.procs)
	}
	s.procs[pid] = p
}

// AppendSpans appends spans as one line of OTLP/JSON, as a collector's file receiver
// reads it. It changes them: they cannot be sent afterwards.
func AppendSpans(dst []byte, spans []*tracepb.ResourceSpans) ([]byte, error) {
	for _, rs := range spans {
		for _, ss := range rs.ScopeSpans {
			for _, span := range ss.Spans {
				span.TraceId, span.SpanId, span.ParentSpanId = hexed(span.TraceId), hexed(span.SpanId),
					hexed(span.ParentSpanId)
			}
		}
	}
	line, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return dst, err
	}
	b := bytes.NewBuffer(dst)
	err = json.Compact(b, line) // protojson adds spaces at random
	return append(b.Bytes(), '\n'), err
}

// hexed returns the bytes whose base64, which protojson writes, is the hexadecimal
// of an identifier, which OTLP/JSON wants.
func hexed(id []byte) []byte {
	b, err := base64.StdEncoding.DecodeString(hex.EncodeToString(id))
	if err != nil {
		return nil // not of identifiers, which have a multiple of 4 digits
	}
	return b
}

func (s *Spans) add(e *event.Event, span *tracepb.Span) {
	rs := s.batch[e.PID]
	if rs == nil {
		rs = &tracepb.ResourceSpans{
			Resource: &resourcepb.Resource{Attributes: s.resource(e)}, SchemaUrl: spanSchema,
			ScopeSpans: []*tracepb.ScopeSpans{{
				Scope: &commonpb.InstrumentationScope{
					Name:    "github.com/postern-project/postern/internal/trace",
					Version: s.c.Version,
				},
				SchemaUrl: spanSchema,
			}},
		}
		s.batch[e.PID] = rs
	}
	rs.ScopeSpans[0].Spans = append(rs.ScopeSpans[0].Spans, span)
	s.spans++
}

func (s *Spans) resource(e *event.Event) attributes {
	p := s.procs[e.PID]
	var a attributes
	a.text("service.name", p.name)
	a.text("service.instance.id", fmt.Sprintf("%s/%d", s.c.Host, e.PID))
	a.text("host.name", s.c.Host)
	a.text("os.type", "linux")
	a.number("process.pid", int64(e.PID))
	a.text("process.executable.name", p.name)
	a.text("process.command_line", format.MaskCommand(p.command))
	return a
}

// identifiers are those of one call.
type identifiers struct{ trace, client, server []byte }

func identify(host string, c *event.Call) identifiers {
	b := append([]byte(host), 0)
	for _, n := range []uint64{
		c.Begin, uint64(c.PID), c.Client, uint64(c.Prog), uint64(uint32(c.Proc)),
		uint64(c.Serial),
	} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	sum := sha256.Sum256(b)
	return identifiers{sum[:16], sum[16:24], sum[24:]}
}

// command returns the identifier of a monitor command's span.
func (i *identifiers) command(n int) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte(nil), i.server...), uint64(n)))
	return sum[:8]
}

// call makes the span of one side of a call, whose reply e is.
func (s *Spans) call(e *event.Event, ids *identifiers) *tracepb.Span {
	program, procedure := libvirt.ProgramName(e.Prog), libvirt.ProcedureName(e.Prog, e.Proc)
	span := &tracepb.Span{
		TraceId: ids.trace, SpanId: ids.client, Kind: tracepb.Span_SPAN_KIND_CLIENT, Name: program + "/" + procedure,
		StartTimeUnixNano: nanos(e.Wall.Add(-e.Took)), EndTimeUnixNano: nanos(e.Wall),
	}
	var a attributes
	a.system("libvirt", program, span.Name)
	if e.Server() {
		span.Kind, span.SpanId = tracepb.Span_SPAN_KIND_SERVER, ids.server
		if !e.Kind.Notice() && (e.Call.PID != e.PID || e.Call.Client != e.Client) {
			span.ParentSpanId = ids.client // its side was seen first
		}
		if q := e.Call.Queue; q > 0 {
			span.Events = []*tracepb.Span_Event{{
				TimeUnixNano: nanos(e.Wall.Add(q - e.Took)),
				Name:         "taken up by a worker",
			}}
		}
	}
	a.peer(e)
	s.payload(&a, span, e)
	a.text("libvirt.connection", string(format.Pointer(nil, e.Client, 0)))
	a.number("libvirt.serial", int64(e.Serial))
	a.number("thread.id", int64(e.TID))
	a.text("thread.name", e.Comm)
	span.Attributes = a
	return span
}

// payload adds a call's arguments and its result.
func (s *Spans) payload(a *attributes, span *tracepb.Span, e *event.Event) {
	c := e.Call
	var object libvirt.Object
	if c.Args != nil || c.ArgsLen == 0 {
		m := s.dec.Arguments(c)
		a.text("libvirt.arguments", string(m.AppendText(nil, libvirt.Style{})))
		object = m.Domain()
		a.domain(object)
	}
	switch e.Kind {
	case event.CallOpen:
		a.text("libvirt.call.state", "open")
		return
	case event.CallUnanswered:
		a.text("libvirt.call.state", "unanswered")
		return
	}
	m := s.dec.Event(e)
	if object.Kind == libvirt.ObjectNone && !format.Unread(e) {
		a.domain(m.Domain())
	}
	if m.Status != libvirt.Failed {
		a.text("rpc.response.status_code", m.Status.String())
		return
	}
	code, text := "error", ""
	if f := m.Failure(); f != nil {
		code, text = libvirt.ErrorName(f.Code), string(m.AppendText(nil, libvirt.Style{}))
	}
	a.failed(span, code, text)
}

// command makes the span of a monitor command that was sent for a call, whose reply
// e is.
func (s *Spans) command(e *event.Event, ids *identifiers, n int) *tracepb.Span {
	c := &e.Call.Monitor[n]
	m := qmp.Parse([]byte(c.Text))
	begin := e.Wall.Add(-time.Duration(int64(e.Mono - c.Send)))
	span := &tracepb.Span{
		TraceId: ids.trace, SpanId: ids.command(n), ParentSpanId: ids.server, Kind: tracepb.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: nanos(begin), EndTimeUnixNano: nanos(begin.Add(c.Took)),
	}
	name := "_OTHER"
	if m.Kind == qmp.Command {
		name = string(format.Clean(nil, string(m.Name)))
	}
	span.Name = "qmp/" + name
	var a attributes
	a.system("qmp", "qmp", span.Name)
	a.text("libvirt.domain.name", c.Domain)
	a.text("qmp.id", c.ID)
	if len(m.Body) > 0 {
		a.text("qmp.arguments", string(m.AppendMaskedBody(nil)))
	}
	switch reply := qmp.Parse([]byte(c.Reply)); {
	case c.Took == 0:
		span.EndTimeUnixNano = nanos(e.Wall)
		a.failed(span, "no_answer", "not answered before the call was")
	case reply.Kind == qmp.Failure:
		a.failed(span, string(reply.Class), string(qmp.AppendWithoutPasswords(nil, reply.Desc, reply.Cut)))
	default:
		a.text("rpc.response.status_code", "ok")
	}
	span.Attributes = a
	return span
}

func nanos(t time.Time) uint64 { return uint64(t.UnixNano()) }

// attributes are a list under construction. Texts that are empty are left out.
type attributes []*commonpb.KeyValue

func (a *attributes) text(key, value string) {
	if value == "" {
		return
	}
	value = strings.ToValidUTF8(string(format.Short(nil, value, maxSpanText)), "?")
	*a = append(*a, &commonpb.KeyValue{
		Key:   key,
		Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}},
	})
}

func (a *attributes) number(key string, n int64) {
	*a = append(*a,
		&commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}})
}

func (a *attributes) system(system, service, method string) {
	a.text("rpc.system.name", system)
	a.text("rpc.system", system)
	a.text("rpc.service", service)
	a.text("rpc.method", method)
}

func (a *attributes) failed(span *tracepb.Span, code, text string) {
	a.text("rpc.response.status_code", code)
	a.text("error.type", code)
	span.Status = &tracepb.Status{
		Code:    tracepb.Status_STATUS_CODE_ERROR,
		Message: strings.ToValidUTF8(string(format.Short(nil, text, maxSpanText)), "?"),
	}
}

// peer adds the attributes of the other end.
func (a *attributes) peer(e *event.Event) {
	p := e.Peer
	if p == nil {
		return
	}
	end := "server"
	if e.Server() {
		end = "client"
		user := p.SASLName
		if user == "" {
			user = p.User
		}
		a.text("user.name", user)
		if p.PID != 0 && p.UID >= 0 {
			a.text("user.id", strconv.Itoa(p.UID))
		}
		a.text("tls.client.subject", p.TLSName)
		if p.PID != 0 {
			a.number("libvirt.client.pid", int64(p.PID))
			a.text("libvirt.client.command", format.MaskCommand(p.Command))
		}
	}
	ip, port, _ := strings.Cut(p.Remote, ";")
	addr, err := netip.ParseAddr(ip)
	n, _ := strconv.ParseUint(port, 10, 16)
	switch {
	case p.Remote == "" && p.PID == 0:
	case err != nil || n == 0: // how libvirt writes the addresses of Unix sockets
		a.text("network.transport", "unix")
	default:
		a.text("network.transport", "tcp")
		a.text(end+".address", addr.String())
		a.number(end+".port", int64(n))
	}
}

func (a *attributes) domain(o libvirt.Object) {
	if o.Kind == libvirt.ObjectNone {
		return
	}
	a.text("libvirt.domain.name", string(o.Name[:min(len(o.Name), 256)]))
	if len(o.UUID) == 16 {
		a.text("libvirt.domain.uuid", string(libvirt.AppendUUID(nil, o.UUID)))
	}
}
