package posterntest

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Distance is a way to a server that takes a while in each direction.
type Distance struct {
	dial  func() (net.Conn, error)
	delay time.Duration
	trips atomic.Int64
}

// Delay takes the connections of a listener on to a server, which dial reaches. All that is
// sent arrives a delay later.
func Delay(l net.Listener, delay time.Duration, dial func() (net.Conn, error)) *Distance {
	d := &Distance{dial: dial, delay: delay}
	go d.accept(l)
	return d
}

// Distant returns a database's URL over a way of its own, on which all that is sent
// arrives a delay later.
func (p *PostgreSQL) Distant(t testing.TB, database string, delay time.Duration) (string, *Distance) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	port := 5432
	if p.port != 0 {
		port = p.port
	}
	socket := filepath.Join(p.dir, fmt.Sprintf(".s.PGSQL.%d", port))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := Delay(l, delay, func() (net.Conn, error) { return net.Dial("unix", socket) })
	return fmt.Sprintf("postgres://postgres@%s%s?sslmode=disable", l.Addr(), u.Path), d
}

// Trips is how many round trips all connections have begun: how often a client sent
// something after it had been answered.
func (d *Distance) Trips() int64 { return d.trips.Load() }

func (d *Distance) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := d.dial()
		if err != nil {
			client.Close()
			continue
		}
		var asked atomic.Bool
		go d.carry(server, client, func() {
			if !asked.Swap(true) {
				d.trips.Add(1)
			}
		})
		go d.carry(client, server, func() { asked.Store(false) })
	}
}

// carry takes what one side sends to the other one, until either ends.
func (d *Distance) carry(to, from net.Conn, sent func()) {
	type parcel struct {
		due  time.Time
		data []byte
	}
	way := make(chan parcel, 1024)
	go func() {
		defer to.Close()
		for p := range way {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				from.Close()
			}
		}
	}()
	defer close(way)
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			sent()
			way <- parcel{time.Now().Add(d.delay), buffer[:n]}
		}
		if err != nil {
			return
		}
	}
}
