package posterntest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// DNS is a name server on loopback whose records a test sets as it goes. Names
// it does not have do not exist.
type DNS struct {
	Addr string // host:port, UDP and TCP

	mu      sync.Mutex
	records map[string][]dns.RR
	asked   map[string]int
	answer  func(name string, n int) []string // see Vary
}

// StartDNS starts a name server, and stops it when the test ends.
func StartDNS(t testing.TB) *DNS {
	t.Helper()
	packets, stream := listenDNS(t)
	d := &DNS{Addr: stream.Addr().String(), records: map[string][]dns.RR{}, asked: map[string]int{}}
	var serving sync.WaitGroup
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: stream}} {
		s.Handler = dns.HandlerFunc(d.serve)
		serving.Go(func() {
			s.ActivateAndServe() //nolint:errcheck // ends when it is shut down
		})
	}
	t.Cleanup(func() {
		packets.Close()
		stream.Close()
		serving.Wait()
	})
	return d
}

// listenDNS listens on one port over UDP and TCP.
func listenDNS(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		stream, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			return packets, stream
		}
		stream.Close()
	}
	t.Fatal("no port is free over both UDP and TCP")
	return nil, nil
}

// Set makes the records of a name and type those given, in zone file form
// without name and class: "A 127.0.0.1", `TXT "x"`.
func (d *DNS) Set(t testing.TB, name string, records ...string) {
	t.Helper()
	list := parseRecords(t, name, records)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[strings.ToLower(dns.Fqdn(name))] = list
}

// Add adds records to a name.
func (d *DNS) Add(t testing.TB, name string, records ...string) {
	t.Helper()
	list := parseRecords(t, name, records)
	d.mu.Lock()
	defer d.mu.Unlock()
	key := strings.ToLower(dns.Fqdn(name))
	d.records[key] = append(d.records[key], list...)
}

func parseRecords(t testing.TB, name string, records []string) []dns.RR {
	t.Helper()
	var list []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(dns.Fqdn(name) + " 1 IN " + r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr)
	}
	return list
}

// Vary answers A queries with what f returns for the name and the number of
// times that it was asked for before, where f returns anything.
func (d *DNS) Vary(f func(name string, n int) []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = f
}

func (d *DNS) serve(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	if len(q.Question) == 1 {
		d.fill(m, q.Question[0])
	}
	w.WriteMsg(m) //nolint:errcheck // the one who asked is gone
}

func (d *DNS) fill(m *dns.Msg, q dns.Question) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strings.ToLower(q.Name)
	if d.answer != nil && q.Qtype == dns.TypeA {
		n := d.asked[name]
		d.asked[name]++
		for _, a := range d.answer(strings.TrimSuffix(name, "."), n) {
			if rr, err := dns.NewRR(q.Name + " 0 IN A " + a); err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
		if len(m.Answer) > 0 {
			return
		}
	}
	list, ok := d.records[name]
	if !ok {
		m.Rcode = dns.RcodeNameError
		return
	}
	for _, rr := range list {
		if rr.Header().Rrtype == q.Qtype || rr.Header().Rrtype == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
}
