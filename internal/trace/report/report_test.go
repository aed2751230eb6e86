package report

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// recorded returns a recording of events.
func recorded(t testing.TB, events ...*event.Event) []byte {
	t.Helper()
	var b bytes.Buffer
	r, err := record.NewRecorder(&b, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := r.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Idle(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pageOf returns the page of a recording.
func pageOf(t testing.TB, recording []byte) string {
	t.Helper()
	var b bytes.Buffer
	if _, _, err := (Report{Name: "test.trace"}).Write(bytes.NewReader(recording), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// traffic writes the recording of a busy host: n messages of clients, machines and
// procedures that differ, seen by client and daemon.
func traffic(w io.Writer, n int) error {
	r, err := record.NewRecorder(w, 0)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	peers := make([]*event.Peer, 200)
	for i := range peers {
		peers[i] = &event.Peer{
			PID: 5000 + i, UID: 1000 + i%9, User: fmt.Sprintf("user%d", i%9), Start: uint64(i),
			Command: "/usr/bin/virsh list", Remote: "127.0.0.1;0",
		}
	}
	mono := uint64(tracetest.Begin)
	send := func(e *event.Event, at uint64) error {
		e.Mono, e.Wall = at, time.Unix(0, int64(at))
		return r.Event(e)
	}
	for i := range n / 4 {
		peer := peers[random.IntN(len(peers))]
		proc := []int32{22, 23, 60, 151, 212}[random.IntN(5)]
		args := append(tracetest.String(fmt.Sprintf("vm%d", random.IntN(300))), bytes.Repeat([]byte{7}, 16)...)
		args = append(args, 0, 0, 0, 3, 0, 0, 0, 0)
		took := 1 + uint64(random.ExpFloat64()*2e5)
		step := uint64(random.IntN(40_000))
		for k, kind := range []event.Kind{event.ClientTx, event.ServerRx, event.ServerTx, event.ClientRx} {
			typ, status, payload := uint32(0), uint32(0), args
			if k >= 2 {
				typ, payload = 1, nil
				if random.IntN(50) == 0 {
					status, payload = 1, tracetest.NoDomain
				}
			}
			e := tracetest.Message(0, kind, proc, typ, status, uint32(i), payload)
			if kind.Server() {
				e.Peer = peer
			} else {
				e.PID, e.TID = peer.PID, peer.PID
			}
			e.Client += uint64(peer.PID) << 8
			if err := send(e, mono+[]uint64{0, 5000, 5000 + took, 10000 + took}[k]); err != nil {
				return err
			}
		}
		mono += 20_000 + took + step
	}
	return r.Idle()
}

// BenchmarkMillionMessages makes the page of a large recording.
func BenchmarkMillionMessages(b *testing.B) {
	var recording bytes.Buffer
	if err := traffic(&recording, 1e6); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(recording.Len())/1e6, "recording-MB")
	for b.Loop() {
		var page bytes.Buffer
		if _, _, err := (Report{}).Write(bytes.NewReader(recording.Bytes()), &page); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(page.Len())/1e6, "page-MB")
	}
}

// TestStacksSayWhereFunctionsStand writes what is known of each frame of a stack.
func TestStacksSayWhereFunctionsStand(t *testing.T) {
	got := frames([]event.Frame{
		{PC: 0x7f01, Symbol: "f", Offset: 16, Size: 32, Module: "/lib/libvirt.so.0", File: "src/rpc/a\x1b.c", Line: 7},
		{PC: 0x7f02, Start: 0x100, Offset: 1, Size: 32, Module: "/lib/libvirt.so.0"},
		{PC: 0x7f03},
	})
	want := []string{`f+0x10 [libvirt.so.0] src/rpc/a\x1b.c:7`, "0x100+0x1 [libvirt.so.0]", "0x7f03"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestMachinesOfOneNameHaveLanesOfTheirOwn tells two machines of one name apart by their UUIDs.
func TestMachinesOfOneNameHaveLanesOfTheirOwn(t *testing.T) {
	const getInfo = 16
	var events []*event.Event
	for i, uuid := range []byte{1, 2, 1} {
		args := append(tracetest.String("vm1"), bytes.Repeat([]byte{uuid}, 16)...)
		events = append(events,
			tracetest.Message(10*i, event.ServerRx, getInfo, 0, 0, uint32(i), append(args, tracetest.Word(5)...)),
			tracetest.Message(10*i+5, event.ServerTx, getInfo, 1, 0, uint32(i), nil))
	}
	page := pageOf(t, recorded(t, events...))
	for _, want := range []string{
		`<th scope="row">vm1 (01010101-0101-0101-0101-010101010101)</th><td class="n">2</td>`,
		`<th scope="row">vm1 (02020202-0202-0202-0202-020202020202)</th><td class="n">1</td>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in the page", want)
		}
	}
}
