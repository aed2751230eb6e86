package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// simulated is a host whose agent's connections, spool and sender are real.
type simulated struct {
	login
	to     *agent.Target
	spool  *relay.Spool
	sender *relay.Sender
	calls  int         // reported
	heard  atomic.Bool // the server's update
}

// TestThousandHosts has a thousand hosts report to a server, and again at once after it was
// killed: no event is lost or doubled. It prints events a second, and the server's memory
// for each host.
func TestThousandHosts(t *testing.T) {
	posterntest.Soak(t)
	const many, few = 1000, 100
	r := startForAgents(t)
	st := r.open()
	if err := st.Store.People().AddPerson(t.Context(), postern.Person{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	fleet := admitMany(t, st, fmt.Sprintf("https://localhost:%d", r.opts.HTTPSPort), many)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	reported := 0
	call := func(hosts []*simulated, calls int) {
		for range calls {
			for _, h := range hosts {
				if err := h.spool.Append(h.call(h.calls)); err != nil {
					t.Fatal(err)
				}
				h.calls++
			}
		}
		reported += len(hosts) * calls
	}
	report := func(hosts []*simulated, calls int) {
		t.Helper()
		began, before := time.Now(), callsOn(t, st)
		call(hosts, calls)
		r.await(func() bool { return callsOn(t, st) >= reported })
		t.Logf("%d events of %d hosts: %.0f a second", reported-before, len(hosts),
			float64(reported-before)/time.Since(began).Seconds())
	}
	// connected waits until each host has an update on its lasting connection.
	connected := func(hosts []*simulated) {
		for _, h := range hosts {
			running.Go(func() { h.sender.Run(ctx) })
			running.Go(func() { h.watch(ctx) })
		}
		r.await(func() bool {
			return !slices.ContainsFunc(hosts, func(h *simulated) bool { return !h.heard.Load() })
		})
	}
	connected(fleet[:few])
	report(fleet[:few], 200) // from here on the database takes no more memory
	small := r.held()
	connected(fleet[few:])
	report(fleet[few:], 2)
	each := (r.held() - small) / (many - few)
	t.Logf("the server has %d KiB for each host; the goal is 100", each>>10)

	r.kill()
	call(fleet, 1) // while no server is there
	<-r.ended
	r.start()
	report(fleet, 10)
	total := 0
	times := map[string]int{}
	err := timeline.Each(t.Context(), st.Store.Timeline(), timeline.Filter{}, func(events []postern.Event) error {
		for _, e := range events {
			switch e.Kind {
			case postern.EventAgentLost:
				t.Errorf("lost: %+v", e)
			case postern.EventLibvirtCall:
				times[linkTo(e, postern.LinkProcess)]++
				total++
			}
		}
		return nil
	})
	if err != nil || len(times) != reported || total != reported {
		t.Errorf("%d events, %d of them different, want %d: %v", total, len(times), reported, err)
	}
}

// admitMany adds hosts and gives each its certificate.
func admitMany(t *testing.T, st *state.State, url string, n int) (fleet []*simulated) {
	t.Helper()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	var hosts []postern.Host
	for i := range n {
		hosts = append(hosts, postern.Host{Name: fmt.Sprint("hv", i+1)})
	}
	tokens, err := host.Invite(t.Context(), st.Store.Hosts(), postern.Actor{}, hosts,
		host.InviteOptions{Root: authority.Root()})
	if err != nil {
		t.Fatal(err)
	}
	admit := HostAuthority{CA: authority, Hosts: st.Store.Hosts(), Limit: new(host.Limit)}
	dir := t.TempDir()
	root := filepath.Join(dir, "root.pem")
	writeFile(t, root, string(ca.EncodeCertificates(authority.Root())))
	for i, h := range hosts {
		c := agent.Credentials{
			Cert: filepath.Join(dir, h.Name+".crt"), Key: filepath.Join(dir, h.Name+".key"),
			CA: root,
		}
		key, csr := posterntest.NewCSR(t)
		_, chain, err := admit.Admit(t.Context(), postern.Actor{}, tokens[i].Hash(), csr)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, c.Cert, string(chain))
		writeFile(t, c.Key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		fleet = append(fleet, newSimulated(t, h.Name, agent.Server{URLs: []string{url}, Credentials: c}))
	}
	return fleet
}

func newSimulated(t *testing.T, name string, to agent.Server) *simulated {
	t.Helper()
	h := &simulated{login: login{host: name, person: "alice", n: 1, nonce: fmt.Sprintf("%032x", 1)}}
	var err error
	if h.to, err = to.Target(); err != nil {
		t.Fatal(err)
	}
	if h.spool, err = relay.OpenSpool(relay.SpoolConfig{Dir: t.TempDir(), MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.spool.Close() })
	h.sender, err = relay.NewSender(relay.SenderConfig{URL: h.to.Base + relay.Path, Host: name, Client: h.to.Client},
		h.spool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// watch keeps asking for updates, as an agent does.
func (h *simulated) watch(ctx context.Context) {
	ask := remote.Client{URL: h.to.Base, HTTP: h.to.Client}
	for ctx.Err() == nil {
		if _, err := ask.Watch(ctx, remote.Seen{}); err == nil {
			h.heard.Store(true)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// callsOn returns how many calls the timeline has.
func callsOn(t *testing.T, st *state.State) (n int) {
	t.Helper()
	err := st.Store.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COUNT(*) FROM log_events WHERE kind = 'libvirt.call'`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// held returns how many bytes the server has without garbage (RssAnon of proc(5)).
func (r *running) held() int {
	r.t.Helper()
	freed := func() int { return strings.Count(r.out.String(), "freed\n") }
	before := freed()
	if err := r.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		r.t.Fatal(err)
	}
	r.await(func() bool { return freed() > before })
	status := posterntest.Read(r.t, fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindStringSubmatch(status)
	if m == nil {
		r.t.Fatal(status)
	}
	kib, err := strconv.Atoi(m[1])
	if err != nil {
		r.t.Fatal(err)
	}
	return kib << 10
}
