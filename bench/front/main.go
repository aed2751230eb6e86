// Command front measures Postern's HTTPS server against its peers, in one run on one
// machine: full TLS 1.3 handshakes with a client certificate, a returning
// client's connections, and keep-alive requests through a guarded location. The
// peers are Caddy (the same library, without Postern), nginx and Apache. Each is a
// process of its own; rounds of all alternate, and the medians are compared. It fails
// if Postern misses a goal.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// goal is what Postern must reach, as a ratio to a peer.
type goal struct {
	work, peer string
	ratio      float64
}

var goals = []goal{
	{full, "caddy", 0.98},
	{full, "nginx", 1.5},
	{returning, "caddy", 2},
	{keepAlive, "caddy", 0.98},
}

// The kinds of work.
const (
	full      = "full handshakes with a client certificate"
	returning = "a returning client's connections"
	keepAlive = "keep-alive requests, guarded"
)

func main() {
	rounds := flag.Int("rounds", 7, "rounds; in each every server has its turn")
	slice := flag.Duration("slice", time.Second, "how long a turn lasts")
	clients := flag.Int("clients", 16, "connections at once")
	only := flag.String("only", "", "comma-separated peers; default all that are installed")
	work := flag.String("work", "", "part of the name of the work to measure; default all")
	serve := flag.String("serve-caddy", "", "serve a Caddy configuration: used by the command itself")
	flag.Parse()
	if *serve != "" {
		exit(serveCaddy(*serve))
	}
	exit(run(options{rounds: *rounds, slice: *slice, clients: *clients, only: *only, work: *work}))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "front:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type options struct {
	rounds, clients int
	slice           time.Duration
	only, work      string
}

func run(o options) error {
	dir, err := os.MkdirTemp("", "bench-front")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rig, err := newRig(dir)
	if err != nil {
		return err
	}
	defer rig.stop()
	servers := slices.DeleteFunc(slices.Clone(rig.servers), func(s *server) bool {
		return o.only != "" && s.name != "postern" && !slices.Contains(strings.Split(o.only, ","), s.name)
	})
	var failed []string
	for _, work := range []string{full, returning, keepAlive} {
		if !strings.Contains(work, o.work) {
			continue
		}
		rates := make(map[string][]result)
		for range o.rounds {
			for _, s := range servers {
				r, err := measure(rig, s, work, o)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", s.name, work, err)
				}
				rates[s.name] = append(rates[s.name], r)
			}
		}
		failed = append(failed, report(work, servers, rates)...)
	}
	if len(failed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(failed, "; "))
	}
	return nil
}

// result is what one turn gave.
type result struct {
	rate float64 // a second
	cpu  float64 // seconds of the server's, user and system, for one
}

func measure(rig *rig, s *server, work string, o options) (result, error) {
	cpu, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	var n int
	begin := time.Now()
	if work == keepAlive {
		n, err = rig.requests(s, o.clients, o.slice)
	} else {
		n, err = rig.connections(s, o.clients, o.slice, work == returning)
	}
	took := time.Since(begin).Seconds()
	if err != nil {
		return result{}, err
	}
	after, err := s.cpu()
	return result{rate: float64(n) / took, cpu: (after - cpu) / float64(n)}, err
}

// report prints the medians, and the median of the ratios of each round, and
// returns what was missed.
func report(work string, servers []*server, rates map[string][]result) (failed []string) {
	fmt.Printf("\n%s (TLS %x)\n", work, tls.VersionTLS13)
	for _, s := range servers {
		rate := median(rates[s.name], func(r result) float64 { return r.rate })
		cpu := median(rates[s.name], func(r result) float64 { return r.cpu })
		fmt.Printf("  %-8s %8.0f a second   %7.1f us of CPU each", s.name, rate, cpu*1e6)
		if s.name == "postern" {
			fmt.Println()
			continue
		}
		var ratios []float64
		for i, r := range rates[s.name] {
			ratios = append(ratios, rates["postern"][i].rate/r.rate)
		}
		slices.Sort(ratios)
		ratio := ratios[len(ratios)/2]
		fmt.Printf("   postern/%s %.2f (%.2f to %.2f)", s.name, ratio, ratios[0], ratios[len(ratios)-1])
		for _, g := range goals {
			if g.work == work && g.peer == s.name {
				fmt.Printf("   goal %.2f", g.ratio)
				if ratio < g.ratio {
					failed = append(failed, fmt.Sprintf("%s: %.2f of %s, not %.2f", work, ratio, s.name, g.ratio))
				}
			}
		}
		fmt.Println()
	}
	return failed
}

func median(rs []result, of func(result) float64) float64 {
	var v []float64
	for _, r := range rs {
		v = append(v, of(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}
