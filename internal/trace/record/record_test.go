package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

func sampleEvents() []event.Event {
	alice := &event.Peer{
		PID: 7, UID: 1000, User: "alice", Start: 99, Session: 3, Command: "virsh list",
		Local: "127.0.0.1;16509", Remote: "127.0.0.1;4000", TLSName: "CN=a", SASLName: "a",
		SELinux: "user_u:user_r:user_t:s0", Via: 77,
	}
	wall := time.Unix(1700000000, 123456789)
	message := func(kind event.Kind, typ uint32, mono uint64) event.Event {
		return event.Event{
			Kind: kind, Probe: "libvirt:x", Mono: mono, Wall: wall, PID: 1, TID: 2, CPU: 1, UID: -1,
			Comm: "rpc-libvirtd",
			Args: []uint64{1, ^uint64(0)}, Strings: []string{"", "a"}, Cut: true, Client: 0xabc, Len: 32,
			Prog: 0x20008086, Vers: 1,
			Proc: -5, Type: typ, Status: 1, Serial: 9, Payload: []byte{1, 2, 3, 4}, PayloadLen: 4, NoPayload: false,
			Began: 5, Peer: alice, Domain: "vm1", FD: "eventfd",
		}
	}
	return []event.Event{
		message(event.ServerRx, 0, 10),
		message(event.ServerTx, 1, 20),
		{Kind: event.Lost, Probe: "libvirt:x", PID: 1, Comm: "libvirtd", Wall: wall, Mono: 30, Args: []uint64{3}},
		{
			Kind: event.MonitorEvent, Wall: wall, Mono: 40, Args: []uint64{1, 2},
			Strings: []string{"", `{"event":"STOP"}`},
		},
	}
}

func recorded(t testing.TB, events []event.Event, limit int64) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	r, err := NewRecorder(&b, limit)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if err = r.Event(&events[i]); err != nil {
			break
		}
	}
	if ferr := r.Idle(); ferr != nil {
		t.Fatal(ferr)
	}
	return b.Bytes(), err
}

func TestRecordingKeepsEverything(t *testing.T) {
	want := sampleEvents()
	data, err := recorded(t, want, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []event.Event
	if err := readRecording(bytes.NewReader(data), func(e *event.Event) error {
		k := *e
		k.Payload = bytes.Clone(e.Payload)
		got = append(got, k)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		for _, e := range []*event.Event{&want[i], &got[i]} {
			if len(e.Args) == 0 {
				e.Args = nil
			}
			if len(e.Strings) == 0 {
				e.Strings = nil
			}
			e.Wall = e.Wall.UTC()
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("event %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func TestReplayJoins(t *testing.T) {
	data, err := recorded(t, sampleEvents(), 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &tracetest.Collector{}
	sum, err := Replay(bytes.NewReader(data), correlate.Filter{}, false, c)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Seen != 3 || len(sum.Losses) != 1 || sum.Losses[0].Lost != 3 || sum.String() != "3 events seen, 3 lost" {
		t.Errorf("%v %+v", sum, sum)
	}
	if e := c.All()[1]; e.Took != 10 || e.Call == nil || e.Peer == nil || e.Peer.User != "alice" {
		t.Errorf("%+v", e)
	}
}

// TestReplayFilters replays a recording of everything through each filter: what
// is shown is what a live trace would have shown.
func TestReplayFilters(t *testing.T) {
	const pid, other = 1, 2
	const proc = 7
	events := []event.Event{
		{Kind: event.HandleAdd, PID: pid, TID: 3, UID: 1000, Args: []uint64{1, 4, 1}},
		{Kind: event.HandleDispatch, PID: pid, TID: 3, UID: 1000, Args: []uint64{1, 1}, Mono: 100},
		{Kind: event.HandleDone, PID: pid, TID: 3, UID: 1000, Mono: 100 + uint64(time.Second)},
		{Kind: event.TimeoutAdd, PID: other, TID: 4, Args: []uint64{1, 10}},
		{
			Kind: event.MonitorEvent, PID: pid, Domain: "vm1", Args: []uint64{1, 2},
			Strings: []string{"", `{"event":"STOP"}`},
		},
		{
			Kind: event.ServerRx, PID: pid, Client: 5, Len: 28, Prog: 0x20008086, Proc: proc,
			Peer: &event.Peer{PID: 9, UID: 1000, User: "alice"},
		},
		{Kind: event.Lost, PID: other, Args: []uint64{3}},
	}
	data, err := recorded(t, events, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		filter correlate.Filter
		want   []event.Kind
	}{
		"pid": {correlate.Filter{PIDs: []int{other}}, []event.Kind{event.TimeoutAdd, event.Lost}},
		"user": {correlate.Filter{Users: []string{"alice", "1000"}}, []event.Kind{
			event.HandleAdd,
			event.HandleDispatch, event.HandleDone, event.ServerRx, event.Lost, event.CallOpen,
		}},
		"connection": {
			correlate.Filter{Clients: []uint64{5}},
			[]event.Kind{event.ServerRx, event.Lost, event.CallOpen},
		},
		"procedure": {
			correlate.Filter{Procedures: map[event.Procedure]bool{{Prog: 0x20008086, Proc: proc}: true}},
			[]event.Kind{event.ServerRx, event.Lost, event.CallOpen},
		},
		"type":   {correlate.Filter{Types: 1}, []event.Kind{event.ServerRx, event.Lost}},
		"status": {correlate.Filter{Statuses: 1 << libvirt.Failed}, []event.Kind{event.Lost}},
		"errors": {correlate.Filter{Errors: true}, []event.Kind{event.Lost}},
		"slower": {correlate.Filter{Slower: time.Second}, []event.Kind{event.Lost}},
		"domain": {correlate.Filter{Domains: []string{"vm?"}}, []event.Kind{event.MonitorEvent, event.Lost}},
		"slow": {
			correlate.Filter{Slow: time.Second},
			[]event.Kind{event.HandleDone, event.MonitorEvent, event.ServerRx, event.Lost, event.CallOpen},
		},
		"slow, a pid": {correlate.Filter{Slow: time.Second, PIDs: []int{other}}, []event.Kind{event.Lost}},
	} {
		k := &tracetest.Collector{}
		if _, err := Replay(bytes.NewReader(data), c.filter, false, k); err != nil {
			t.Fatal(err)
		}
		var got []event.Kind
		for _, e := range k.All() {
			got = append(got, e.Kind)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: shows %v, want %v", name, got, c.want)
		}
	}
}

func TestRecordingEndsAtItsLimit(t *testing.T) {
	all, err := recorded(t, sampleEvents(), 0)
	if err != nil {
		t.Fatal(err)
	}
	part, err := recorded(t, sampleEvents(), int64(len(all)-1))
	if !errors.Is(err, ErrFull) || len(part) >= len(all) {
		t.Errorf("%d bytes of %d: %v", len(part), len(all), err)
	}
	if _, err := Replay(bytes.NewReader(part), correlate.Filter{}, false, &tracetest.Collector{}); err != nil {
		t.Errorf("what was recorded before the limit: %v", err)
	}
}

func TestDamagedRecordings(t *testing.T) {
	data, err := recorded(t, sampleEvents(), 0)
	if err != nil {
		t.Fatal(err)
	}
	huge := append(bytes.Clone(data), 0xff, 0xff, 0xff, 0xff)
	flipped := bytes.Clone(data)
	flipped[len(recordingMagic)+4] = 0x7f // refers to a client that was never described
	for name, b := range map[string][]byte{
		"empty": nil, "another file": []byte("#!/bin/sh\nexit\n...."), "cut": data[:len(data)-1], "huge event": huge,
		"flipped": flipped,
	} {
		_, err := Replay(bytes.NewReader(b), correlate.Filter{}, false, &tracetest.Collector{})
		if postern.CodeOf(err) != postern.Invalid || err == nil || !strings.Contains(err.Error(), "recording") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReplay(f *testing.F) {
	data, err := recorded(f, sampleEvents(), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(recordingMagic))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = Replay(bytes.NewReader(b), correlate.Filter{Domains: []string{"vm*"}, Slow: 1}, true,
			&tracetest.Collector{})
	})
}

// TestPeersAreReferredTo holds that a client's identity is written once.
func TestPeersAreReferredTo(t *testing.T) {
	one := sampleEvents()[:1]
	two := append(one, one[0])
	first, err := recorded(t, one, 0)
	if err != nil {
		t.Fatal(err)
	}
	both, err := recorded(t, two, 0)
	if err != nil {
		t.Fatal(err)
	}
	second := len(both) - len(first)
	length := binary.LittleEndian.Uint32(first[len(recordingMagic):])
	if second >= int(length) {
		t.Errorf("the second event has %d bytes, the first %d", second, length)
	}
}
