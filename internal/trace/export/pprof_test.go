package export

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/postern-project/postern/internal/trace/event"
)

// frames is the stack of a function in libvirt's library and of its caller, in a
// process that has the library at base.
func frames(base uint64, symbol string) []event.Frame {
	lib := event.Frame{Module: "/lib/libvirt.so", BuildID: "5ec7", ModuleSize: 0x4000}
	in, by := lib, lib
	in.PC, in.ModuleOffset, in.Symbol, in.Start, in.Offset, in.Size = base+0x1010, 0x1010, symbol, 0x1000, 0x10, 0x80
	in.File, in.Line = "src/rpc/"+symbol+".c", 7
	by.PC, by.ModuleOffset, by.Start, by.Offset, by.Size = base+0x2020, 0x2020, 0x2000, 0x20, 0x80
	return []event.Frame{in, by, {PC: 0xdead}}
}

// TestProfile gives each event to its stack, and the time of a call to the stack
// that made it and to the one that answered it.
func TestProfile(t *testing.T) {
	call := &event.Call{}
	with := func(e *event.Event, symbol string, took time.Duration) *event.Event {
		e.Took = took
		if symbol != "" {
			e.Frames = frames(uint64(e.PID)<<20, symbol)
		}
		return e
	}
	rpc := func(k event.Kind, typ uint32, symbol string, took time.Duration) *event.Event {
		e := with(message(1, k, 22, typ, 0, 1, nil), symbol, took)
		e.Call = call
		return e
	}
	send := other(2, event.MonitorSend, 815, []uint64{7, 1}, "", `{"execute":"stop","id":"libvirt-1"}`)
	send.Domain = "vm1"
	var p Profile
	for _, e := range []*event.Event{
		rpc(event.ClientTx, 0, "send", 0),
		rpc(event.ServerRx, 0, "read", 0),
		with(send, "command", 0),
		with(other(3, event.MonitorReply, 815, []uint64{7, 1}, "", `{"return": {}, "id": "libvirt-1"}`), "answer", 3),
		rpc(event.ServerTx, 1, "reply", 5),
		rpc(event.ServerTx, 1, "reply", 6),
		rpc(event.ClientRx, 1, "receive", 9),
		with(other(4, event.HandleDispatch, 815, []uint64{1, 1}), "dispatch", 0),
		with(other(5, event.HandleDone, 815, []uint64{1}), "", 11),
		with(other(6, event.HandleDone, 900, []uint64{1}), "", 99), // begun before the trace
	} {
		if err := p.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got.Sample {
		line := fmt.Sprint(s.Value, s.NumLabel["pid"])
		for _, name := range []string{"event", "side", "procedure", "machine", "user", "command"} {
			line += " " + strings.Join(s.Label[name], "")
		}
		for _, l := range s.Location {
			name := "-"
			if len(l.Line) > 0 {
				name = l.Line[0].Function.Name
				if file := l.Line[0].Function.Filename; file != "" {
					name += fmt.Sprintf("(%s:%d)", file, l.Line[0].Line)
				}
			}
			line += fmt.Sprintf(" %#x=%s", l.Address, name)
		}
		lines = append(lines, line)
	}
	want := []string{
		"[1 9] [4711] call client remote.domain_lookup_by_id    0x126701010=send(src/rpc/send.c:7) " +
			"0x12670201f=libvirt.so+0x2000 " +
			"0xdeac=-",
		"[1 0] [815] call server remote.domain_lookup_by_id  dan /usr/bin/virsh domname 5 " +
			"0x126701010=read(src/rpc/read.c:7) " +
			"0x12670201f=libvirt.so+0x2000 0xdeac=-",
		"[1 3] [815] monitor.command  stop vm1   0x126701010=command(src/rpc/command.c:7) " +
			"0x12670201f=libvirt.so+0x2000 0xdeac=-",
		"[1 0] [815] monitor.reply      0x126701010=answer(src/rpc/answer.c:7) 0x12670201f=libvirt.so+0x2000 0xdeac=-",
		"[2 11] [815] reply server remote.domain_lookup_by_id  dan /usr/bin/virsh domname 5 " +
			"0x126701010=reply(src/rpc/reply.c:7) " +
			"0x12670201f=libvirt.so+0x2000 0xdeac=-",
		"[1 0] [4711] reply client remote.domain_lookup_by_id    0x126701010=receive(src/rpc/receive.c:7) " +
			"0x12670201f=libvirt.so+0x2000 " +
			"0xdeac=-",
		"[1 11] [815] handle.dispatch      0x126701010=dispatch(src/rpc/dispatch.c:7) 0x12670201f=libvirt.so+0x2000 " +
			"0xdeac=-",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if len(got.Mapping) != 1 || got.Mapping[0].File != "/lib/libvirt.so" || got.Mapping[0].BuildID != "5ec7" ||
		got.Mapping[0].Limit-got.Mapping[0].Start != 0x4000 || !got.Mapping[0].HasLineNumbers {
		t.Errorf("mappings %v", got.Mapping)
	}
	if p.Samples() != 8 || got.DurationNanos != int64(5*time.Millisecond) {
		t.Errorf("%d samples in %d ns", p.Samples(), got.DurationNanos)
	}
}
