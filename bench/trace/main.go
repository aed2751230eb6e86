// Command trace measures what watching libvirt costs: as many calls a second as
// libvirtd can serve, untraced, traced by postern trace rpc with payloads into a
// file, and traced by bpftrace printing what it can; interleaved in one run, on
// one and on four connections. Beside them it measures a program that does nothing
// at the same probes, which shows what the kernel costs any tracer, and untraced turns
// against each other, which show the error of measurement. It fails if postern takes
// more than its goals allow, or loses a message. What postern took before is measured
// in the same run with -before FILE, another postern.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

// The goals.
const (
	throughputGoal = 0.97 // of what the program that does nothing leaves
	cpuGoal        = 0.5  // of bpftrace's, per message
	beforeGoal     = 1.1  // of the CPU per message of the postern before
)

// warmUp is how long calls are made before a turn is measured.
const warmUp = 250 * time.Millisecond

var verbose bool

func main() {
	rounds := flag.Int("rounds", 15, "rounds; in each every tracer has its turn, between two untraced ones")
	slice := flag.Duration("slice", 400*time.Millisecond, "how long a turn lasts")
	conns := flag.String("connections", "1,4", "how many connections call at once; one comparison for each")
	binary := flag.String("postern", "", "the postern to measure; built when empty")
	before := flag.String("before", "", "a postern of before to compare with, if any")
	flag.BoolVar(&verbose, "v", false, "print every turn")
	flag.Parse()
	if err := run(*rounds, *slice, *conns, *binary, *before); err != nil {
		fmt.Fprintln(os.Stderr, "bench/trace:", err)
		os.Exit(1)
	}
}

func run(rounds int, slice time.Duration, list, binary, before string) error {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "postern")
		if out, err := exec.Command("go", "build", "-o", binary, "./cmd/postern").CombinedOutput(); err != nil {
			return fmt.Errorf("build postern: %w: %s", err, out)
		}
	}
	ports, err := posterntest.FreePorts(2)
	if err != nil {
		return err
	}
	l, err := posterntest.RunLibvirtd(ports[0], ports[1])
	if err != nil {
		return err
	}
	defer l.Stop()
	cpus, err := processors()
	if err != nil {
		return err
	}
	stop, err := keepAwake(cpus)
	if err != nil {
		return err
	}
	defer stop()
	if err := errors.Join(pin(os.Getpid(), cpus[0]), pin(l.PID, cpus[len(cpus)-1])); err != nil {
		return err
	}
	b := &bench{l: l, dir: dir, binaries: map[string]string{"postern": binary}, slice: slice, cpus: cpus}
	if before != "" {
		b.binaries["before"] = before
		tracers = append(tracers, "before")
	}
	var errs []error
	for _, word := range strings.Split(list, ",") {
		conns, err := strconv.Atoi(word)
		if err != nil || conns < 1 {
			return fmt.Errorf("-connections %s: numbers with commas between", list)
		}
		errs = append(errs, b.compare(rounds, conns))
	}
	return errors.Join(errs...)
}

type bench struct {
	l        *posterntest.Libvirtd
	dir      string
	binaries map[string]string // of postern, by the tracer's name
	slice    time.Duration
	cpus     []int // all that there are
}

// turn is what one tracer's turn measured.
type turn struct {
	calls  int
	took   time.Duration
	daemon time.Duration // CPU of libvirtd, probes included
	tracer time.Duration // CPU of the tracer while it ran, its start and end not
}

func (t turn) rate() float64 { return float64(t.calls) / t.took.Seconds() }

// messages is how many the tracer saw: a call and its reply in the daemon.
func (t turn) messages() int { return 2 * t.calls }

var tracers = []string{"postern", "bare", "bpftrace"}

// probes are what every tracer is attached to.
var probes = []string{
	"rpc_client_msg_rx", "rpc_client_msg_tx_queue", "rpc_server_client_msg_rx",
	"rpc_server_client_msg_tx_queue",
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// result is what the turns of one tracer came to.
type result struct {
	rates  []float64 // calls a second
	ratios []float64 // to untraced
	cpu    []float64 // microseconds of CPU a message, beyond untraced
}

// compare gives each tracer its turns, each between two untraced ones, and
// compares it with these alone: the speed of a machine changes from one moment to
// the next by more than tracing costs. Each untraced turn is compared likewise
// with the untraced ones around it.
func (b *bench) compare(rounds, conns int) error {
	results := map[string]*result{"untraced": {}}
	for _, name := range tracers {
		results[name] = &result{}
	}
	lost := 0
	run := func(name string) (turn, error) {
		t, l, err := b.turn(name, conns)
		if err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		lost += l
		results[name].rates = append(results[name].rates, t.rate())
		if verbose {
			fmt.Printf("%d connections  %-9s %8.0f calls/s  daemon %6.2f µs a call  tracer %6.2f µs a message\n",
				conns, name, t.rate(), micros(t.daemon)/float64(t.calls), micros(t.tracer)/float64(t.messages()))
		}
		return t, nil
	}
	var previous turn
	before, err := run("untraced")
	for range rounds {
		for _, name := range tracers {
			var t, after turn
			if err == nil {
				t, err = run(name)
			}
			if err == nil {
				after, err = run("untraced")
			}
			if err != nil {
				return err
			}
			results[name].add(t, before, after)
			if previous.calls > 0 {
				results["untraced"].add(before, previous, after)
			}
			previous, before = before, after
		}
	}
	return report(results, conns, lost)
}

// add compares a turn with its neighbours.
func (r *result) add(t, before, after turn) {
	perCall := func(d time.Duration, calls int) float64 { return micros(d) / float64(calls) }
	bare := (perCall(before.daemon, before.calls) + perCall(after.daemon, after.calls)) / 2
	r.ratios = append(r.ratios, t.rate()/((before.rate()+after.rate())/2))
	r.cpu = append(r.cpu, (perCall(t.daemon+t.tracer, t.calls)-bare)/2)
}

func report(results map[string]*result, conns, lost int) error {
	for _, name := range slices.Concat([]string{"untraced"}, tracers) {
		r := results[name]
		fmt.Printf("%d connections  %-9s %8.0f calls/s  %.3f of untraced (half of the turns: %.3f to %.3f)  %5.2f "+
			"µs CPU a message\n", conns, name,
			median(r.rates), median(r.ratios), quantile(r.ratios, 0.25), quantile(r.ratios, 0.75), median(r.cpu))
	}
	kernel := median(results["bare"].ratios)
	ratio := median(results["postern"].ratios) / kernel
	cpu, peer := median(results["postern"].cpu), median(results["bpftrace"].cpu)
	fmt.Printf("%d connections  postern/bare %.3f (goal %.2f), CPU postern/bpftrace %.3f (goal %.2f), lost %d\n",
		conns, ratio, throughputGoal, cpu/peer, cpuGoal, lost)
	before := results["before"]
	if before != nil {
		fmt.Printf("%d connections  CPU postern/before %.3f (goal %.2f)\n", conns, cpu/median(before.cpu), beforeGoal)
	}
	switch {
	case lost > 0:
		return fmt.Errorf("%d connections: %d messages lost", conns, lost)
	case ratio < throughputGoal:
		return fmt.Errorf("%d connections: %.3f of what the kernel's part leaves", conns, ratio)
	case before != nil && cpu > beforeGoal*median(before.cpu):
		return fmt.Errorf("%d connections: %.2f µs a message, before %.2f", conns, cpu, median(before.cpu))
	case cpu > cpuGoal*peer:
		return fmt.Errorf("%d connections: %.2f µs a message, bpftrace takes %.2f", conns, cpu, peer)
	}
	return nil
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile returns the value that a share of the others is below, between two of
// them where it falls there.
func quantile(v []float64, share float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	at := share * float64(len(sorted)-1)
	i := int(at)
	next := sorted[min(i+1, len(sorted)-1)]
	return sorted[i] + (at-float64(i))*(next-sorted[i])
}

// turn runs the load for one slice under one tracer, and returns with it how
// many messages the tracer did not show.
func (b *bench) turn(name string, conns int) (turn, int, error) {
	tr, err := b.start(name)
	if err != nil {
		return turn{}, 0, err
	}
	if tr.cmd != nil {
		if err := pin(tr.cmd.Process.Pid, b.cpus...); err != nil {
			return turn{}, 0, err
		}
	}
	clients, err := b.dial(conns)
	if err != nil {
		return turn{}, 0, err
	}
	// The time just after a tracer was started or stopped is not measured.
	warm, err := load(clients, time.Now().Add(warmUp))
	if err != nil {
		return turn{}, 0, err
	}
	daemon, tracer := cpuTime(b.l.PID), tr.cpu()
	begin := time.Now()
	calls, err := load(clients, begin.Add(b.slice))
	t := turn{calls: calls, took: time.Since(begin)}
	// What is still in the tracer's buffer is its work too.
	time.Sleep(150 * time.Millisecond)
	t.daemon, t.tracer = cpuTime(b.l.PID)-daemon, tr.cpu()-tracer
	for _, c := range clients {
		c.Close()
	}
	if err != nil {
		return t, 0, err
	}
	if err := tr.stop(); err != nil {
		return t, 0, err
	}
	if b.binaries[name] == "" {
		return t, 0, nil
	}
	return t, max(0, t.messages()+2*warm-tr.shown()), nil
}

func (b *bench) dial(n int) ([]*posterntest.RPC, error) {
	var out []*posterntest.RPC
	for range n {
		c, err := posterntest.DialRPC("unix", b.l.Socket())
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// load calls until the end, on all connections at once.
func load(clients []*posterntest.RPC, end time.Time) (int, error) {
	var wg sync.WaitGroup
	counts, errs := make([]int, len(clients)), make([]error, len(clients))
	for i, c := range clients {
		wg.Go(func() { counts[i], errs[i] = cycle(c, end) })
	}
	wg.Wait()
	calls := 0
	for _, n := range counts {
		calls += n
	}
	return calls, errors.Join(errs...)
}

// cycle asks what monitoring asks: find a domain, its state, its figures, the
// version.
func cycle(c *posterntest.RPC, end time.Time) (int, error) {
	reply, err := c.Call(posterntest.ProcLookupByName, posterntest.String("vm1"))
	if err != nil {
		return 0, err
	}
	domain := bytes.Clone(reply)
	state := append(bytes.Clone(domain), 0, 0, 0, 0)
	steps := []struct {
		proc    int32
		payload []byte
	}{
		{posterntest.ProcLookupByName, posterntest.String("vm1")},
		{posterntest.ProcDomainState, state},
		{posterntest.ProcDomainInfo, domain},
		{posterntest.ProcLibVersion, nil},
	}
	n := 1
	for time.Now().Before(end) {
		for _, s := range steps {
			if _, err := c.Call(s.proc, s.payload); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
