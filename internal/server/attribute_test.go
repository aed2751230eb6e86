package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/timeline"
)

// fleet are hosts that report to one server: by the agents' own spools and senders, and
// with events as agents write them.
type fleet struct {
	st      *state.State
	servers map[string]string // by host: the URL at which its certificate is shown
}

const fleetSize = 3

func newFleet(t *testing.T) *fleet {
	t.Helper()
	st, err := state.Create(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	f := &fleet{st: st, servers: map[string]string{}}
	known := &attribution{st: st, log: slog.New(slog.DiscardHandler)}
	for n := range fleetSize {
		host := fmt.Sprint("hv", n+1)
		h, err := relay.NewHandler(relay.Config{
			Source: func(*http.Request) (relay.Source, error) {
				return relay.Source{Name: "joined:" + host, Host: host}, nil
			},
			Complete: known.complete,
		}, st.Store.Relay(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		f.servers[host] = s.URL
	}
	return f
}

// person adds a person.
func (f *fleet) person(t *testing.T, name string) {
	t.Helper()
	if err := f.st.Store.People().AddPerson(t.Context(), postern.Person{Name: name}); err != nil {
		t.Fatal(err)
	}
}

// login is a person's login to a host: what the server writes of its check, and the host of
// the session.
type login struct {
	host, person string
	n            int // of the session, and the PID of its sshd
	nonce        string
}

func (l login) link(kind, id string) postern.Link {
	return postern.Link{Kind: kind, ID: l.host + "/boot/" + id}
}

func (l login) session() postern.Link { return l.link(postern.LinkSession, fmt.Sprint(l.n)) }

func (l login) checked() postern.Link {
	return postern.Link{Kind: postern.LinkLogin, ID: l.host + "/" + l.nonce}
}

func (l login) check() postern.Event {
	return postern.Event{
		Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: l.person, Object: l.person, Address: "192.0.2.7",
		Links:   []postern.Link{l.checked(), {Kind: string(postern.YubiKey), ID: "vv" + l.person}},
		Details: map[string]string{"method": "code", "service": "sshd"},
	}
}

func (l login) event(kind string) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: kind, Outcome: postern.OK, Host: l.host, Object: l.person,
		Links: []postern.Link{l.link(postern.LinkProcess, fmt.Sprint(l.n, "/1")), l.session(), l.checked()},
	}
}

// call is a call from the session, by a process of its own, to the one vm1 of its host.
func (l login) call(n int) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: postern.EventLibvirtCall, Outcome: postern.OK, Host: l.host, Object: "vm1",
		Links: []postern.Link{
			l.link(postern.LinkProcess, fmt.Sprint(l.n*1000+n, "/2")), l.session(),
			{Kind: postern.LinkDomain, ID: fmt.Sprintf("7732fd75-b914-4350-9d4b-bd11a6ba3%s", l.host)},
		},
		Details: map[string]string{timeline.Procedure: "domainDestroy", "user": "root"},
	}
}

// send sends what hosts report, all hosts at once, until the server has it.
func (f *fleet) send(t *testing.T, events map[string][]postern.Event) {
	t.Helper()
	var running sync.WaitGroup
	for host, list := range events {
		spool, err := relay.OpenSpool(relay.SpoolConfig{Dir: t.TempDir(), MaxBytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer spool.Close()
		c := relay.SenderConfig{URL: f.servers[host] + relay.Path, Host: host}
		sender, err := relay.NewSender(c, spool, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for i, e := range list {
				if err := spool.Append(e); err != nil {
					t.Error(err)
				}
				for more := i%17 == 0 || i == len(list)-1; more; {
					if more, err = sender.Send(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	running.Wait()
}

// calls returns the calls on the timeline by the ID of their process.
func (f *fleet) calls(t *testing.T) map[string]postern.Event {
	t.Helper()
	events, err := f.st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventLibvirtCall})
	if err != nil {
		t.Fatal(err)
	}
	byProcess := map[string]postern.Event{}
	for _, e := range events {
		id := linkTo(e, postern.LinkProcess)
		if _, twice := byProcess[id]; twice {
			t.Errorf("the call of %s is there twice", id)
		}
		byProcess[id] = e
	}
	return byProcess
}

// sentence returns what the timeline says of an entry.
func (f *fleet) sentence(t *testing.T, e postern.Event) string {
	t.Helper()
	joined, err := timeline.Join(t.Context(), f.st.Store.Timeline(), e)
	if err != nil {
		t.Fatal(err)
	}
	return timeline.Sentence(e, joined)
}

// TestFortySessionsOnThreeHosts has forty people at once call for machines of one name on
// three hosts: each call is the right person's, by the code that the server checked.
func TestFortySessionsOnThreeHosts(t *testing.T) {
	calls := 2
	if os.Getenv("POSTERN_SOAK") != "" {
		calls = 100
	}
	f := newFleet(t)
	want := map[string]string{} // the person, by the process that called
	events := map[string][]postern.Event{}
	var logins []login
	for p := range 40 {
		person := fmt.Sprint("person", p)
		f.person(t, person)
		for host := range fleetSize {
			if p%4 != host && p%fleetSize != host {
				continue
			}
			// Sessions of different hosts have the same number, as hosts count each for itself.
			l := login{host: fmt.Sprint("hv", host+1), person: person, n: p + 1, nonce: fmt.Sprintf("%032x", p)}
			logins = append(logins, l)
			if err := f.st.Store.Append(t.Context(), l.check()); err != nil {
				t.Fatal(err)
			}
			events[l.host] = append(events[l.host], l.event(postern.EventSSHOpened))
		}
	}
	for n := range calls {
		for _, l := range logins {
			if n == calls-1 { // by nohup, after the person has logged out
				events[l.host] = append(events[l.host], l.event(postern.EventSSHClosed))
			}
			e := l.call(n)
			events[l.host] = append(events[l.host], e)
			want[linkTo(e, postern.LinkProcess)] = l.person
		}
	}
	f.send(t, events)
	got := f.calls(t)
	for id, person := range want {
		e := got[id]
		if e.Person != person || e.Details[timeline.Known] != string(timeline.Exact) {
			t.Fatalf("the call of %s is %q's, %q, not %s's: %+v", id, e.Person, e.Details[timeline.Known], person, e)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d calls, want %d", len(got), len(want))
	}
	e := got[linkTo(logins[0].call(0), postern.LinkProcess)]
	if said := f.sentence(t, e); !strings.HasPrefix(said,
		"person0, YubiKey vvperson0, from 192.0.2.7, ran domainDestroy on vm1 (told by hv1; the person is exact)") {
		t.Error(said)
	}
}

// TestWhatHostsMayNotClaim has hosts claim what they may not say. hv2 is lost to an
// attacker; alice is signed in on hv1 alone.
func TestWhatHostsMayNotClaim(t *testing.T) {
	f := newFleet(t)
	f.person(t, "alice")
	f.person(t, "bob")
	alice := login{host: "hv1", person: "alice", n: 7, nonce: strings.Repeat("a", 32)}
	bob := login{host: "hv2", person: "bob", n: 7, nonce: strings.Repeat("b", 32)}
	for _, l := range []login{alice, bob} {
		if err := f.st.Store.Append(t.Context(), l.check()); err != nil {
			t.Fatal(err)
		}
	}
	f.send(t, map[string][]postern.Event{"hv1": {alice.event(postern.EventSSHOpened), alice.call(1)}})
	change := func(e postern.Event, how func(*postern.Event)) postern.Event { how(&e); return e }
	claimed := login{host: "hv2", person: "alice", n: 8, nonce: strings.Repeat("c", 32)} // which no server checked
	f.send(t, map[string][]postern.Event{"hv2": {
		bob.event(postern.EventSSHOpened), bob.call(2),
		change(bob.call(3), func(e *postern.Event) { e.Links[1] = alice.session() }),
		change(bob.event(postern.EventSSHOpened), func(e *postern.Event) { e.Links[2] = alice.checked() }),
		change(bob.call(4), func(e *postern.Event) { e.Person = "alice" }),
		change(bob.call(5), func(e *postern.Event) { e.Details[timeline.Known] = string(timeline.Exact) }),
		change(bob.call(6), func(e *postern.Event) { e.Host = "hv1" }),
		claimed.event(postern.EventSSHOpened), claimed.call(7),
		change(bob.call(8), func(e *postern.Event) { // argv is what a process likes, and nothing is taken from it
			e.Details["user"] = "alice"
			e.Links = e.Links[2:]
		}),
	}})
	got := f.calls(t)
	for id, want := range map[string]string{
		"hv1/boot/7001/2": "alice exact", "hv2/boot/7002/2": "bob exact", "hv2/boot/8007/2": "alice strong", "": " ",
	} {
		if e := got[id]; e.Person+" "+e.Details[timeline.Known] != want || e.Kind == "" {
			t.Errorf("%q: %s, not %s", id, e.Person+" "+e.Details[timeline.Known], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d calls are accepted, want 4: %v", len(got), got)
	}
	for id, want := range map[string]string{
		"hv2/boot/8007/2": "alice ran domainDestroy on vm1 (told by hv2; the person is as the host says).",
		"":                "the account alice ran domainDestroy on vm1 (told by hv2).",
	} {
		if said := f.sentence(t, got[id]); said != want {
			t.Errorf("%s\nwant %s", said, want)
		}
	}
}

// TestReplaysAndWrongClocks sends a batch again, from its host and from another, and by a
// host whose clock is wrong: each event is there once, at the server's time.
func TestReplaysAndWrongClocks(t *testing.T) {
	f := newFleet(t)
	f.person(t, "alice")
	alice := login{host: "hv1", person: "alice", n: 7, nonce: strings.Repeat("a", 32)}
	if err := f.st.Store.Append(t.Context(), alice.check()); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(2 * time.Hour)
	body := fmt.Appendf(nil, `{"agent":"%032x","host":"hv1","now":%q}`+"\n", 1, now.Format(time.RFC3339Nano))
	for i, e := range []postern.Event{alice.event(postern.EventSSHOpened), alice.call(1)} {
		e.Time = now
		line, err := json.Marshal(relay.Numbered{Seq: int64(i + 1), Event: e})
		if err != nil {
			t.Fatal(err)
		}
		body = append(append(body, line...), '\n')
	}
	for _, c := range []struct {
		host string
		want int
	}{{"hv1", http.StatusOK}, {"hv1", http.StatusOK}, {"hv2", http.StatusForbidden}} {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, f.servers[c.host]+relay.Path,
			bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("from %s: %s", c.host, res.Status)
		}
	}
	got := f.calls(t)
	e := got["hv1/boot/7001/2"]
	if len(got) != 1 || e.Person != "alice" || time.Since(e.Time).Abs() > time.Hour {
		t.Errorf("%+v", got)
	}
	if said := f.sentence(t, e); !strings.Contains(said,
		"; the host's clock was 2h0m0s ahead (told by hv1; the person "+
			"is exact).") {
		t.Error(said)
	}
}
