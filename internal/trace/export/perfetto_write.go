package export

import (
	"strings"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of the fields of Perfetto's messages that are written, from
// protos/perfetto/trace of https://github.com/google/perfetto.
const (
	tracePacket = 1 // Trace

	packetClocks   = 6  // TracePacket.clock_snapshot
	packetTime     = 8  // .timestamp
	packetSequence = 10 // .trusted_packet_sequence_id
	packetEvent    = 11 // .track_event
	packetClock    = 58 // .timestamp_clock_id
	packetTrack    = 60 // .track_descriptor

	clocksClock   = 1 // ClockSnapshot.clocks
	clocksPrimary = 2 // .primary_trace_clock
	clockID       = 1 // ClockSnapshot.Clock.clock_id
	clockTime     = 2 // .timestamp

	trackID       = 1 // TrackDescriptor.uuid
	trackName     = 2 // .name
	trackOfProc   = 3 // .process
	trackOfThread = 4 // .thread
	trackParent   = 5 // .parent_uuid
	processPID    = 1 // ProcessDescriptor.pid
	processName   = 6 // .process_name
	threadPID     = 1 // ThreadDescriptor.pid
	threadTID     = 2 // .tid
	threadName    = 5 // .thread_name

	eventAnnotation = 4  // TrackEvent.debug_annotations
	eventType       = 9  // .type
	eventTrack      = 11 // .track_uuid
	eventCategory   = 22 // .categories
	eventName       = 23 // .name
	eventFlow       = 47 // .flow_ids
	annotationText  = 6  // DebugAnnotation.string_value
	annotationName  = 10 // .name
)

// Values of Perfetto's enumerations.
const (
	clockRealtime  = 1 // BuiltinClock
	clockMonotonic = 3
	sliceBegin     = 1 // TrackEvent.Type
	sliceEnd       = 2
	instant        = 3
	sequence       = 1 // all packets are of one
)

// protobuf is a message of protocol buffers under construction.
type protobuf []byte

func (m protobuf) uint(field protowire.Number, v uint64) protobuf {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m protobuf) fixed(field protowire.Number, v uint64) protobuf {
	return protowire.AppendFixed64(protowire.AppendTag(m, field, protowire.Fixed64Type), v)
}

func (m protobuf) text(field protowire.Number, s string) protobuf {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), strings.ToValidUTF8(s, "?"))
}

func (m protobuf) nested(field protowire.Number, sub protobuf) protobuf {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), sub)
}

// annotate adds a detail to an event, unless it is empty.
func annotate(m protobuf, name, value string) protobuf {
	if value == "" {
		return m
	}
	value = string(format.Short(nil, value, maxSpanText))
	return m.nested(eventAnnotation, protobuf(nil).text(annotationName, name).text(annotationText, value))
}

// write writes a packet. Errors are kept by the buffer until it is flushed.
func (p *Perfetto) write(packet protobuf) {
	_, _ = p.w.Write(protobuf(nil).nested(tracePacket, packet.uint(packetSequence, sequence)))
}

// clocks says that times are of the monotonic clock, and what that was on the wall clock.
func (p *Perfetto) clocks(e *event.Event) {
	clock := func(id, at uint64) protobuf { return protobuf(nil).uint(clockID, id).uint(clockTime, at) }
	p.write(protobuf(nil).nested(packetClocks, protobuf(nil).
		nested(clocksClock, clock(clockMonotonic, e.Mono)).
		nested(clocksClock, clock(clockRealtime, uint64(e.Wall.UnixNano()))).
		uint(clocksPrimary, clockMonotonic)))
}

func (p *Perfetto) describe(t track, id, parent uint64) {
	m := protobuf(nil).uint(trackID, id)
	switch t.kind {
	case trackProcess:
		m = m.nested(trackOfProc, protobuf(nil).uint(processPID, uint64(t.pid)).text(processName, t.title()))
	case trackThread:
		m = m.nested(trackOfThread, protobuf(nil).uint(threadPID, uint64(t.pid)).uint(threadTID, uint64(t.tid)).
			text(threadName, t.title()))
	default:
		m = m.text(trackName, t.title())
		if parent != 0 {
			m = m.uint(trackParent, parent)
		}
	}
	p.write(protobuf(nil).nested(packetTrack, m))
}

// at begins a packet with an event of a track.
func (p *Perfetto) at(mono uint64, e protobuf) {
	p.write(protobuf(nil).uint(packetTime, mono).uint(packetClock, clockMonotonic).nested(packetEvent, e))
}

func (p *Perfetto) begin(track, mono uint64, name, category string, details protobuf) {
	p.at(mono, append(protobuf(nil).uint(eventType, sliceBegin).uint(eventTrack, track).
		text(eventCategory, category).text(eventName, name), details...))
}

func (p *Perfetto) end(track, mono uint64) {
	p.at(mono, protobuf(nil).uint(eventType, sliceEnd).uint(eventTrack, track))
}

func (p *Perfetto) instant(track, mono uint64, name string, details protobuf) {
	p.at(mono, append(protobuf(nil).uint(eventType, instant).uint(eventTrack, track).text(eventName, name),
		details...))
}
