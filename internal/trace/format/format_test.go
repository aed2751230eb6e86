package format

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

const (
	remote = tracetest.Remote
	client = tracetest.Client
	server = tracetest.Server
	begin  = tracetest.Begin
)

var (
	at, message, other  = tracetest.At, tracetest.Message, tracetest.Other
	word, str, noDomain = tracetest.Word, tracetest.String, tracetest.NoDomain
	golden              = tracetest.Golden
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	uuid    = []byte{0xc7, 0xa5, 0xfd, 0xbd, 0xcd, 0xaf, 0x94, 0x55, 0x92, 0x6a, 0xd6, 0x5c, 0x16, 0xdb, 0x18, 0x09}
	opening = join(word(1), str("qemu:///system"), word(0))
)

// session is virsh domname on a domain that does not exist, seen on both sides.
func session() []*event.Event {
	var all []*event.Event
	add := func(e ...*event.Event) { all = append(all, e...) }
	call := func(ms int, proc int32, serial uint32, payload []byte) {
		add(message(ms, event.ClientTx, proc, 0, 0, serial, payload),
			message(ms, event.ServerRx, proc, 0, 0, serial, payload))
	}
	reply := func(ms int, proc int32, status, serial uint32, payload []byte) {
		tx, rx := message(ms, event.ServerTx, proc, 1, status, serial, payload),
			message(ms+1, event.ClientRx, proc, 1, status, serial, payload)
		tx.Took, rx.Took = 402*time.Microsecond, 1402*time.Microsecond
		add(tx, rx)
	}
	add(other(2630, event.SocketNew, 4711, []uint64{0x10, 5, 0xffffffff, 0, 1, 1}, "", "", "", "", "127.0.0.1;0",
		"127.0.0.1;0"))
	add(other(2632, event.ClientNew, 4711, []uint64{client, 0x10}))
	add(other(2632, event.SocketNew, 815, []uint64{0x20, 7, 0xffffffff, 0, 1, 1}, "", "", "", "", "127.0.0.1;0",
		"127.0.0.1;0"))
	add(other(2632, event.ServerNew, 815, []uint64{server, 0x20}))
	call(2632, 66, 0, nil)
	reply(2633, 66, 0, 0, word(1, 0))
	call(2633, 1, 1, opening)
	reply(2639, 1, 0, 1, nil)
	call(2639, 110, 2, nil)
	reply(2639, 110, 0, 2, str("qemu:///system"))
	call(2640, 22, 3, word(5))
	reply(2640, 22, 1, 3, noDomain)
	call(2641, 2, 4, nil)
	reply(2641, 2, 0, 4, nil)
	add(other(2641, event.SocketFree, 4711, []uint64{0x10}))
	add(other(2641, event.ClientFree, 4711, []uint64{client}))
	add(other(2641, event.ServerFree, 815, []uint64{server}))
	add(other(2641, event.SocketFree, 815, []uint64{0x20}))
	return all
}

func loop() []*event.Event {
	done := other(2363, event.HandleDone, 14370, []uint64{33})
	done.Took, done.FD = 1234*time.Microsecond, "socket 127.0.0.1:16509"
	return []*event.Event{
		other(2359, event.HandleAdd, 18185, []uint64{1, 4, 1, 0, 0, 0}),
		other(2360, event.HandleUpdate, 18185, []uint64{2, 0}),
		other(2360, event.HandleDispatch, 14370, []uint64{33, 3, 0, 0}),
		done,
		other(2361, event.PollRun, 14370, []uint64{7, 0xffffffff}),
		other(2370, event.TimeoutAdd, 18185, []uint64{1, 5000}),
		other(2370, event.TimeoutUpdate, 18185, []uint64{1, 0xffffffff}),
		other(2370, event.TimeoutDispatch, 18185, []uint64{1}),
		other(2370, event.TimeoutRemove, 18185, []uint64{1}),
		other(2370, event.HandleIdle, 14370, []uint64{33}),
		other(2371, event.HandleRemove, 14370, []uint64{33}),
	}
}

func monitor() []*event.Event {
	const mon = 0x7f2dc0007960
	m := func(ms int, k event.Kind, text string, fd ...uint64) *event.Event {
		e := other(ms, k, 815, append([]uint64{mon, 1}, fd...), "", text)
		e.Domain = "vm1"
		return e
	}
	const none = 0xffffffff
	ok := m(5774, event.MonitorReply, `{"return": {}, "id": "libvirt-1"}`)
	ok.Took = 900 * time.Microsecond
	secret := m(5780, event.MonitorSend,
		`{"execute":"set_password","arguments":{"protocol":"vnc","password":"123456","connected":"keep"},`+
			`"id":"libvirt-5"}`+"\r\n", none)
	secret.Cause = &event.Call{
		Prog: remote, Vers: 1, Proc: 196, Serial: 12, Client: server,
		Peer: &event.Peer{PID: 4711, UID: 0, User: "root", Command: "virsh start vm1"},
	}
	cut := m(5777, event.MonitorReply, `{"return": [{"name": "quit"}, {"name": `)
	cut.Cut = true
	return []*event.Event{
		m(5773, event.MonitorSend, `{"execute":"qmp_capabilities","id":"libvirt-1"}`+"\r\n", none), ok,
		m(5775, event.MonitorSend, `{"execute":"getfd","arguments":{"fdname":"fd-net0"},"id":"libvirt-2"}`+"\r\n", 31),
		cut, secret,
		m(5781, event.MonitorReply,
			`{"id": "libvirt-5", "error": {"class": "GenericError", "desc": "Could not set password"}}`),
		m(5789, event.MonitorEvent,
			`{"timestamp": {"seconds": 1319466933, "microseconds": 129980}, "event": "RESUME"}`),
	}
}

// rest has one event of every other kind.
func rest() []*event.Event {
	var all []*event.Event
	for k := event.SocketSendFD; k <= event.KeepaliveTimeout; k++ {
		all = append(all, other(10, k, 815, []uint64{0x100, 0x200, 3, 4, 5, 6, 1, 1}, "", "/ca.pem",
			"CN=dan,O=\x1b[31mx", "/cert.pem", "/key.pem", "", "", ""))
	}
	old := other(11, event.SocketNew, 815, []uint64{0x30, 1, 9, 0xffffffff, 0, 1, 1}, "", "", "", "", "",
		"127.0.0.1;1", "127.0.0.1;2")
	old.Probe = "libvirt:rpc_socket_new"
	unref := other(11, event.SocketFree, 815, []uint64{0x30, 2})
	unref.Probe = "libvirt:rpc_socket_free"
	fresh := other(12, event.ServerNew, 815, []uint64{0x31, 1, 0x30})
	lost := other(13, event.Lost, 815, []uint64{17})
	lost.Probe = "libvirt:rpc_client_msg_rx"
	return append(all, old, unref, fresh, lost,
		other(15, event.Gone, 815, nil),
		other(16, event.Warning, 0, nil, "kernel.\x1b"), other(17, event.MonitorNew, 815, []uint64{1, 30}),
		other(17, event.MonitorSendFD, 815, []uint64{1, 30, 1, 0}), other(17, event.Unknown, 1, nil))
}

// odd has messages that are cut, unknown, or have no payload.
func odd() []*event.Event {
	cut := message(1, event.ServerTx, 14, 1, 0, 9, join(word(6000),
		[]byte("<domain type='qemu' id='3'>\n  <name>vm1</name>\n"), bytes.Repeat([]byte("x"), 300)))
	cut.PayloadLen, cut.Len, cut.Cut = 6004, 6032, true
	none := message(2, event.ServerRx, 9, 0, 0, 10, nil)
	none.PayloadLen, none.Len, none.NoPayload = 40, 68, true
	none.Peer = nil
	strange := message(3, event.ClientTx, 9999, 9, 7, 11, []byte("abcd"))
	alien := message(3, event.ClientTx, 1, 0, 0, 11, []byte("abcd"))
	alien.Prog = 5
	stream := message(4, event.ServerTx, 201, 3, 2, 12, []byte("login: \x1b"))
	fds := message(5, event.ServerRx, 310, 4, 0, 13, join(word(2), str("vm1"), uuid, word(0xffffffff, 1)))
	notice := message(6, event.ServerTx, 107, 2, 0, 0, join(str("vm1"), uuid, word(3, 5, 1)))
	notice.Peer = &event.Peer{UID: -1, Remote: "192.0.2.7;4000", TLSName: "CN=alice,O=Example"}
	empty := message(7, event.ClientRx, 66, 1, 0, 0, nil)
	empty.Len = 0
	broken := message(8, event.ServerRx, 23, 0, 0, 14, word(0x7fffffff, 1))
	return []*event.Event{broken, cut, none, strange, alien, stream, fds, notice, empty}
}

// start is a call that had much to say to QEMU.
func start() []*event.Event {
	e := message(700, event.ServerTx, 9, 1, 0, 12, nil)
	e.Took = 612 * time.Millisecond
	e.Call = &event.Call{
		Prog: remote, Vers: 1, Proc: 9, Serial: 12, Client: server, Queue: 13 * time.Microsecond,
		Service: 611 * time.Millisecond, Network: 900 * time.Microsecond,
		Monitor: []event.Command{
			{
				Monitor: 1, Domain: "vm1", ID: "libvirt-1", Took: 900 * time.Microsecond,
				Text: `{"execute":"qmp_capabilities","id":"libvirt-1"}`, Reply: `{"return": {}, "id": "libvirt-1"}`,
			},
			{
				Monitor: 1, Domain: "vm1", ID: "libvirt-2", Took: 2 * time.Millisecond,
				Text:  `{"execute":"set_password","arguments":{"password":"123456"},"id":"libvirt-2"}`,
				Reply: `{"id": "libvirt-2", "error": {"class": "GenericError", "desc": "no"}}`,
			},
			{Monitor: 1, Domain: "vm1", ID: "libvirt-3", Text: `{"execute":"cont","id":"libvirt-3"}`},
		},
	}
	quick := message(701, event.ServerTx, 66, 1, 0, 12, word(1, 0))
	quick.Call = &event.Call{Service: 10 * time.Microsecond}
	return []*event.Event{e, quick}
}

func write(t *testing.T, c Config, events []*event.Event) string {
	t.Helper()
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	var out bytes.Buffer
	f, err := New(&out, c)
	if err != nil {
		t.Fatal(err)
	}
	mono, wall := at(0)
	if err := f.Begin(mono, wall); err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := f.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.End(uint64(len(events)), []event.Loss{{
		PID: 1, Comm: "virsh", Probe: "libvirt:rpc_client_msg_rx",
		Lost: 3,
	}}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestGolden(t *testing.T) {
	stacked := message(2, event.ClientRx, 66, 1, 0, 0, word(1, 0))
	stacked.Frames = []event.Frame{
		{
			PC: 0x3c57f0b3dd, Symbol: "virNetClientIOHandleInput", Start: 0xb360, Offset: 0x87d, Size: 0x890,
			Module: "/usr/lib64/libvirt.so.0.9.7", BuildID: "5ec7", ModuleOffset: 0xb3dd, ModuleSize: 0x40000,
			File: "src/rpc/virnet\x1bclient.c", Line: 1234,
		},
		{
			PC: 0x40ceb0, Start: 0xcea0, Offset: 0x10, Size: 0x80, Module: "/usr/bin/virsh", ModuleOffset: 0xceb0,
			ModuleSize: 0x40000,
		},
		{PC: 0x40ceb1, Module: "/usr/bin/virsh", ModuleOffset: 0xceb1, ModuleSize: 0x40000},
		{PC: 0xdead},
	}
	everything := append(append(append(session(), rest()...), odd()...), start()...)
	for _, c := range []struct {
		name   string
		config Config
		events []*event.Event
	}{
		{"session.stp", Config{Format: STP}, session()},
		{"session.raw", Config{Format: Raw}, session()},
		{"session.named", Config{Format: Named}, session()},
		{"session.text", loud, session()},
		{"session.json", Config{Format: JSON}, session()},
		{"loop.stp", Config{Format: STP}, loop()},
		{"loop.text", loud, loop()},
		{"loop.json", Config{Format: JSON}, loop()},
		{"monitor.stp", Config{Format: STP}, monitor()},
		{"monitor.text", loud, monitor()},
		{"monitor.json", Config{Format: JSON}, monitor()},
		{"secrets.stp", Config{Format: STP, Secrets: true}, monitor()},
		{"odd.stp", Config{Format: STP}, odd()},
		{"calls.text", Config{}, joined(append(session(), rest()...))},
		{"tree.text", Config{Tree: true}, start()},
		{"narrow.text", Config{Width: 80, Color: true}, joined(session())},
		{"daemons.text", Config{}, joined(several())},
		{"open.text", Config{}, open()},
		{"open.json", Config{Format: JSON}, open()},
		{"odd.text", loud, odd()},
		{"odd.json", Config{Format: JSON}, odd()},
		{"odd.full", Config{Full: true, Messages: true, Verbose: true}, odd()},
		{"rest.text", loud, rest()},
		{"rest.json", Config{Format: JSON}, rest()},
		{"rest.stp", Config{Format: STP}, rest()},
		{"start.text", Config{Tree: true, Messages: true, Verbose: true}, start()},
		{"start.json", Config{Format: JSON}, start()},
		{"color.text", Config{Color: true, Tree: true, Messages: true, Verbose: true}, everything},
		{"stack.raw", Config{Format: Raw}, []*event.Event{stacked}},
		{"stack.text", loud, []*event.Event{stacked}},
		{"stack.json", Config{Format: JSON}, []*event.Event{stacked}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := write(t, c.config, c.events)
			if c.config.Format == JSON {
				for line := range strings.Lines(got) {
					if !json.Valid([]byte(line)) {
						t.Errorf("not JSON: %s", line)
					}
				}
			}
			if !c.config.Color {
				for i := range len(got) {
					if got[i] < ' ' && got[i] != '\n' {
						t.Fatalf("control character %#x in the output", got[i])
					}
				}
			}
			if !c.config.Secrets && strings.Contains(got, "123456") {
				t.Error("a password is shown")
			}
			golden(t, c.name, got)
		})
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := New(nil, Config{Format: "xml"}); err == nil {
		t.Error("xml is taken for a format")
	}
}

// TestConnectionsAreForgotten: what is remembered of connections goes with them,
// and is bounded for those that never go.
func TestConnectionsAreForgotten(t *testing.T) {
	f, err := New(&bytes.Buffer{}, Config{Format: STP})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range session() {
		if err := f.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.socks.addrs)+len(f.socks.socks)+len(f.socks.conns) != 0 {
		t.Errorf("%d sockets and %d clients are remembered", len(f.socks.addrs), len(f.socks.conns))
	}
	for i := range uint64(maxSockets + 10) {
		f.socks.track(other(1, event.SocketNew, 1, []uint64{i, 1, 1, 1, 1, 1}))
	}
	if len(f.socks.addrs) > maxSockets {
		t.Errorf("%d sockets are remembered", len(f.socks.addrs))
	}
}

type sinkhole struct{}

func (sinkhole) Write(b []byte) (int, error) { return len(b), nil }

func BenchmarkWrite(b *testing.B) {
	events := session()
	for _, format := range []Format{Text, JSON, STP, Raw} {
		b.Run(string(format)+"-", func(b *testing.B) {
			f, err := New(sinkhole{}, Config{Format: format})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := f.Event(events[4+i%20]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// joined returns events joined to their calls, as a session hands them on.
func joined(events []*event.Event) []*event.Event {
	c := &tracetest.Collector{}
	p := correlate.New(correlate.Filter{}, false)
	for _, e := range events {
		_ = p.Event(e, c) // the sink fails never
	}
	var all []*event.Event
	for _, e := range c.All() {
		all = append(all, &e)
	}
	return all
}

// loud shows all that there is.
var loud = Config{Messages: true, Verbose: true}

// several is the session, and the same call to another daemon.
func several() []*event.Event {
	all := session()
	call, reply := message(2700, event.ServerRx, 22, 0, 0, 9, word(5)),
		message(2701, event.ServerTx, 22, 1, 1, 9, noDomain)
	call.PID, call.TID, call.Comm = 900, 900, "virtqemud"
	reply.PID, reply.TID, reply.Comm = 900, 901, "prio-rpc-virtqe"
	return append(all, call, reply)
}

// open is one call without an answer, as it becomes slow, as the trace ends, and as
// its connection does.
func open() []*event.Event {
	var all []*event.Event
	for i, k := range []event.Kind{event.CallSlow, event.CallOpen, event.CallUnanswered} {
		e := message(2000+i, event.ServerRx, 22, 0, 0, 3, word(5))
		e.Kind, e.Took, e.Call = k, time.Duration(2000+i)*time.Millisecond, &event.Call{Served: true}
		all = append(all, e)
	}
	return all
}
