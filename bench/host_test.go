package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/socket"
)

// hostWay is a host on which people log in.
type hostWay struct {
	name    string
	machine *posterntest.Machine
	took    []float64 // milliseconds, by round
}

// BenchmarkHostLogin measures what pam_postern waits for in a login, its questions about the
// code and the account: on the server's host, on a host that has joined it, and on one from
// which everything takes 10 ms to the server and 10 ms back. What a host adds are at most
// 3 ms, and one round trip.
func BenchmarkHostLogin(b *testing.B) {
	const rounds, trip = 200, 20 * time.Millisecond
	id := posterntest.StartMachine(b)
	id.Reach(id, "id", "192.0.2.1")
	id.Must("echo 192.0.2.1 id.example.internal >>/etc/hosts")
	id.Serve()
	id.Must("postern user add alice")
	id.Must("postern otp token new token.json && " +
		"postern otp token csv token.json | postern otp import --person alice -")
	ways := []*hostWay{
		{name: "local", machine: id},
		{name: "far", machine: joined(b, id, "far", trip/2)},
		{name: "near", machine: joined(b, id, "near", 0)},
	}
	for b.Loop() {
		for range rounds {
			for _, n := range rand.Perm(len(ways)) {
				w := ways[n]
				w.took = append(w.took, pamLogin(b, w.machine, id.Must("postern otp token touch token.json")))
			}
		}
	}
	local := quartiles(ways[0].took)[1]
	for _, w := range ways {
		q := quartiles(w.took)
		b.ReportMetric(q[1], "ms/"+w.name)
		b.Logf("%-6s %6.2f ms (%.2f to %.2f), %+.2f ms, %.2f times local", w.name, q[1], q[0], q[2], q[1]-local,
			q[1]/local)
	}
	far, near := quartiles(ways[1].took)[1], quartiles(ways[2].took)[1]
	trips := (far - near) / float64(trip.Milliseconds())
	b.ReportMetric(near-local, "ms-over-local")
	b.ReportMetric(trips, "round-trips")
	b.Logf("%.2f round trips", trips)
}

// joined is a host that has joined, from which all arrives a delay later, each way.
func joined(b *testing.B, id *posterntest.Machine, name string, delay time.Duration) *posterntest.Machine {
	b.Helper()
	m := posterntest.StartMachine(b)
	m.SSHServer()
	m.Reach(id, name, map[string]string{"near": "192.0.2.2", "far": "192.0.2.3"}[name])
	server := "192.0.2.1"
	if delay > 0 {
		server = "127.0.0.1"
		l, err := posterntest.InNetwork(m.PID, func() (net.Listener, error) {
			return net.Listen("tcp", "127.0.0.1:443")
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		posterntest.Delay(l, delay, func() (net.Conn, error) {
			return posterntest.InNetwork(m.PID, func() (net.Conn, error) { return net.Dial("tcp", "192.0.2.1:443") })
		})
	}
	m.Must(fmt.Sprintf("echo %s id.example.internal >>/etc/hosts", server))
	m.Join(id, name)
	return m
}

// pamLogin asks what pam_postern asks in a login, and returns how many milliseconds the
// answers took.
func pamLogin(b *testing.B, m *posterntest.Machine, code string) float64 {
	b.Helper()
	path := m.Inside(filepath.Join("/run/postern", "pam.sock"))
	start := time.Now()
	for _, q := range []socket.Question{
		{Ask: socket.AskCode, Service: "sshd", User: "alice", Host: "192.0.2.7", Code: code},
		{Ask: socket.AskAccount, Service: "sshd", User: "alice"},
	} {
		if v, err := socket.AskDaemon(context.Background(), path, q); err != nil || v != socket.Yes {
			b.Fatalf("%d, %v", v, err)
		}
	}
	return float64(time.Since(start).Microseconds()) / 1000
}
