package capture

import (
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

func TestEachMessageIsSeenOnceOnEachSide(t *testing.T) {
	for _, transport := range []string{"unix", "tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			c, sum := traced(t, Config{}, func(l *posterntest.Libvirtd) {
				uris := map[string]string{"unix": l.UnixURI(), "tcp": l.TCPURI(), "tls": l.TLSURI()}
				posterntest.Virsh(t, uris[transport], "dominfo", "vm1")
			})
			if len(sum.Losses) != 0 {
				t.Errorf("lost %v", sum.Losses)
			}
			type message struct {
				proc   int32
				typ    uint32
				serial uint32
			}
			seen := map[message]map[event.Kind]int{}
			for _, e := range c.Of(func(e *event.Event) bool { return e.Kind.RPC() }) {
				m := message{e.Proc, e.Type, e.Serial}
				if seen[m] == nil {
					seen[m] = map[event.Kind]int{}
				}
				seen[m][e.Kind]++
				if e.NoPayload || len(e.Payload) != e.PayloadLen || e.Len != e.PayloadLen+28 {
					t.Errorf("%s procedure %d: payload of %d bytes out of %d (message of %d)", e.Probe, e.Proc,
						len(e.Payload), e.PayloadLen, e.Len)
				}
				if e.Call == nil && e.Type <= 1 {
					t.Errorf("%s procedure %d serial %d has no call", e.Probe, e.Proc, e.Serial)
				}
				if e.Type == 1 && e.Took <= 0 {
					t.Errorf("%s procedure %d serial %d took %v", e.Probe, e.Proc, e.Serial, e.Took)
				}
			}
			if len(seen) < 10 {
				t.Fatalf("only %d messages", len(seen))
			}
			for m, by := range seen {
				want := []event.Kind{event.ClientTx, event.ServerRx}
				if m.typ == 1 {
					want = []event.Kind{event.ServerTx, event.ClientRx}
				}
				if len(by) != 2 || by[want[0]] != 1 || by[want[1]] != 1 {
					t.Errorf("%+v was seen %v", m, by)
				}
			}
		})
	}
}

func TestSharesOfACallAddUp(t *testing.T) {
	c, _ := traced(t, Config{Queue: true}, func(l *posterntest.Libvirtd) {
		posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
		posterntest.Virsh(t, l.TCPURI(), "dominfo", "vm1")
	})
	n := 0
	for _, e := range c.Of(func(e *event.Event) bool { return e.Kind == event.ClientRx && e.Type == 1 }) {
		if e.Call == nil {
			continue
		}
		n++
		sum := e.Call.Queue + e.Call.Service + e.Call.Network
		if e.Call.Network <= 0 || e.Call.Service <= 0 || sum != e.Took {
			t.Errorf("procedure %d took %v: queue %v, service %v, network %v", e.Proc, e.Took, e.Call.Queue,
				e.Call.Service, e.Call.Network)
		}
		if e.Call.Queue <= 0 {
			t.Errorf("procedure %d: queue %v", e.Proc, e.Call.Queue)
		}
	}
	if n < 10 {
		t.Errorf("only %d replies", n)
	}
}

func TestUnixClientIsKnown(t *testing.T) {
	posterntest.Need(t, "setpriv")
	var pid int
	c, _ := traced(t, Config{}, func(l *posterntest.Libvirtd) {
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "virsh", "-c", l.UnixURI(),
			"dominfo", "vm1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("virsh as user 65534: %v: %s", err, out)
		}
		pid = cmd.Process.Pid
	})
	n, daemon := 0, posterntest.SharedLibvirtd(t).PID
	for _, e := range c.Of(func(e *event.Event) bool { return e.Kind == event.ServerRx || e.Kind == event.ServerTx }) {
		if e.PID != daemon {
			continue // another libvirt on this host
		}
		n++
		p := e.Peer
		if p == nil || p.PID != pid || p.UID != 65534 || p.User != "nobody" ||
			p.Command != "virsh" && !strings.HasPrefix(p.Command, "virsh -c ") {
			t.Fatalf("client of serial %d: %+v, want pid %d", e.Serial, p, pid)
		}
	}
	if n == 0 {
		t.Error("nothing was seen of the daemon")
	}
}

// TestOlderKernelsAttachOneByOne attaches as on kernels that cannot attach many
// places at once.
func TestOlderKernelsAttachOneByOne(t *testing.T) {
	c, sum := traced(t, Config{What: RPC | Loop, Queue: true, oneByOne: true}, func(l *posterntest.Libvirtd) {
		posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
	})
	if len(sum.Losses) > 0 {
		t.Errorf("lost %v", sum.Losses)
	}
	kinds := map[event.Kind]int{}
	for _, e := range c.All() {
		kinds[e.Kind]++
		if e.Kind.RPC() && e.NoPayload {
			t.Errorf("%s procedure %d without its payload", e.Probe, e.Proc)
		}
		if e.Kind == event.ClientRx && e.Type == 1 && e.Call != nil && e.Call.Queue <= 0 {
			t.Errorf("procedure %d: queue %v", e.Proc, e.Call.Queue)
		}
	}
	for _, k := range []event.Kind{event.ClientTx, event.ServerRx, event.ServerTx, event.ClientRx} {
		if kinds[k] < 10 || kinds[k] != kinds[event.ClientTx] {
			t.Errorf("%d messages of kind %d, %d were sent", kinds[k], k, kinds[event.ClientTx])
		}
	}
	// One may have been running when the trace began, another when it ended.
	if n, done := kinds[event.HandleDispatch], kinds[event.HandleDone]; n == 0 || done < n-2 || done > n+2 {
		t.Errorf("%d dispatches, %d ended", kinds[event.HandleDispatch], kinds[event.HandleDone])
	}
	clean(t, posterntest.SharedLibvirtd(t))
}

func TestTLSClientIsKnownByName(t *testing.T) {
	c, _ := traced(t, Config{}, func(l *posterntest.Libvirtd) {
		posterntest.Virsh(t, l.TLSURI(), "dominfo", "vm1")
	})
	daemon := posterntest.SharedLibvirtd(t).PID
	replies := c.Of(func(e *event.Event) bool { return e.Kind == event.ServerTx && e.PID == daemon })
	if len(replies) == 0 {
		t.Fatal("nothing was seen of the daemon")
	}
	for _, e := range replies {
		if e.Peer == nil || !strings.Contains(e.Peer.TLSName, "CN=tester") {
			t.Fatalf("client: %+v", e.Peer)
		}
	}
}

func TestConnectionOlderThanTheTracer(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	cmd := exec.Command("virsh", "-q", "-c", l.UnixURI())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ask := func(command, answer string) {
		t.Helper()
		if _, err := in.Write([]byte(command + "\n")); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for b := make([]byte, 4096); !strings.Contains(string(got), answer); {
			n, err := out.Read(b)
			if err != nil {
				t.Fatalf("virsh: %v after %q", err, got)
			}
			got = append(got, b[:n]...)
		}
	}
	ask("domstate vm1", "shut off")
	c, _ := traced(t, Config{Filter: correlate.Filter{PIDs: []int{l.PID}}}, func(*posterntest.Libvirtd) {
		ask("domname vm1\ndomstate vm1", "shut off")
	})
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Logf("virsh: %v", err)
	}
	events := c.Of(func(e *event.Event) bool { return e.Kind.RPC() })
	if len(events) == 0 {
		t.Fatal("nothing was seen")
	}
	for _, e := range events {
		if !e.Kind.Server() {
			t.Fatalf("an event of another process: %+v", e)
		}
		if e.Peer == nil || e.Peer.PID != cmd.Process.Pid || e.Peer.UID != 0 {
			t.Fatalf("client: %+v, want pid %d", e.Peer, cmd.Process.Pid)
		}
	}
}

// TestProxyNamesItsClient sets an identity at a real daemon as root, as virtproxyd does.
func TestProxyNamesItsClient(t *testing.T) {
	const pid, start, uid = 4711, 77, 1000
	identity := tracetest.SetIdentity(pid, start, uid, "dan", "dan@EXAMPLE")
	c, _ := traced(t, Config{Filter: correlate.Filter{
		Procedures: map[event.Procedure]bool{{
			Prog: posterntest.RemoteProgram,
			Proc: posterntest.ProcLibVersion,
		}: true},
	}}, func(l *posterntest.Libvirtd) {
		r, err := posterntest.DialRPC("unix", l.Socket())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, call := range []struct {
			proc int32
			args []byte
		}{{posterntest.ProcLibVersion, nil}, {libvirt.SetIdentity.Proc, identity}, {posterntest.ProcLibVersion, nil}} {
			if _, err := r.Call(call.proc, call.args); err != nil {
				t.Fatalf("procedure %d: %v", call.proc, err)
			}
		}
	})
	replies := c.Of(func(e *event.Event) bool { return e.Kind == event.ServerTx })
	if len(replies) != 2 {
		t.Fatalf("%d replies", len(replies))
	}
	if p := replies[0].Peer; p.PID != os.Getpid() || p.Via != 0 {
		t.Errorf("before: %+v", p)
	}
	p := replies[1].Peer
	if p.PID != pid || p.Start != start || p.UID != uid || p.User != "dan" || p.SASLName != "dan@EXAMPLE" ||
		p.Via != os.Getpid() {
		t.Errorf("after: %+v", p)
	}
}

// TestUnknownProceduresPass: those that no table knows are seen by who asks for them, whatever
// else is filtered.
func TestUnknownProceduresPass(t *testing.T) {
	const destroy = 12
	program := event.Procedure{Prog: 0x12345678, Proc: 3}
	newer := event.Procedure{Prog: posterntest.RemoteProgram, Proc: 9999}
	for _, unknown := range []bool{false, true} {
		cfg := Config{Filter: correlate.Filter{
			Procedures: map[event.Procedure]bool{{Prog: posterntest.RemoteProgram, Proc: destroy}: true},
			Unknown:    unknown,
		}}
		c, _ := traced(t, cfg, func(l *posterntest.Libvirtd) {
			for _, p := range []event.Procedure{
				program, newer, {Prog: posterntest.RemoteProgram, Proc: posterntest.ProcLibVersion},
			} {
				r, err := posterntest.DialRPC("unix", l.Socket())
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.CallProgram(p.Prog, p.Proc, nil)
				if known := p != program && p != newer; known != (err == nil) {
					t.Errorf("%v: %v", p, err)
				}
				r.Close()
			}
		})
		seen := map[event.Procedure]int{}
		for _, e := range c.Of(func(e *event.Event) bool { return e.Kind == event.ServerTx }) {
			seen[event.Procedure{Prog: e.Prog, Proc: e.Proc}]++
		}
		want := map[event.Procedure]int{}
		if unknown {
			want = map[event.Procedure]int{program: 1, newer: 1}
		}
		if !maps.Equal(seen, want) {
			t.Errorf("unknown ones pass: %v; seen %v, want %v", unknown, seen, want)
		}
	}
}
