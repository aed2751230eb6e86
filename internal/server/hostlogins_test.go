package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

// giveToken adds a person with a software token.
func giveToken(t *testing.T, st *state.State, person string) *otp.SoftToken {
	t.Helper()
	if err := st.Store.People().AddPerson(t.Context(), postern.Person{Name: person}); err != nil {
		t.Fatal(err)
	}
	one, err := NewOneTime(st, Mappings, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	token := otp.NewSoftToken()
	key := &otp.Key{PublicID: token.PublicID, Secret: &token.Secret, Person: person, Last: otp.Never}
	if err := one.Keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false); err != nil {
		t.Fatal(err)
	}
	return token
}

func touch(t *testing.T, token *otp.SoftToken) string {
	t.Helper()
	code, err := token.Touch(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return code.Modhex()
}

// runAgent answers logins on a host for the servers until the test ends, in two processes.
// It returns the socket, and where the agent keeps its files.
func runAgent(t *testing.T, host string, to agent.Server) (pam, spool string) {
	t.Helper()
	dir := t.TempDir()
	pam, spool = filepath.Join(dir, "pam.sock"), filepath.Join(dir, "spool")
	ctx, cancel := context.WithCancel(context.Background())
	target, stop, err := to.Reach(ctx, spool, slog.New(slog.DiscardHandler))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	signers := x509.NewCertPool() // as of a host whose server shows a public certificate
	signers.AppendCertsFromPEM([]byte(posterntest.Read(t, to.CA)))
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Config{
			Host: host, Watched: agent.Watched{}, Target: target, Spool: relay.SpoolConfig{Dir: spool},
			Logins: agent.LoginSockets(pam, true), Log: slog.New(slog.DiscardHandler),
			Roots: func() (*x509.CertPool, error) { return signers, nil },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		stop()
	})
	for {
		if _, err := os.Stat(pam); err == nil {
			return pam, spool
		}
		posterntest.Pause(t)
	}
}

// TestLoginsOfAnotherHost answers pam_postern on a host by asking a server: the code of a
// person is right once, what is known of the session is bound to the check, and while the
// host is suspended or the server unavailable nothing is accepted.
func TestLoginsOfAnotherHost(t *testing.T) {
	posterntest.NeedRoot(t)
	r := startForAgents(t)
	st := r.open()
	address := fmt.Sprintf("https://localhost:%d", r.opts.HTTPSPort)
	hv1 := agentCredentials(t, st, postern.Person{Name: "hv1", Groups: []string{"agents"}})
	alice := giveToken(t, st, "alice")
	dead := fmt.Sprintf("https://localhost:%d", posterntest.FreePort(t))
	pam, _ := runAgent(t, "hv1", agent.Server{URLs: []string{dead, address}, Credentials: hv1})
	ask := func(kind socket.Ask, code string) socket.Verdict {
		v, err := socket.AskDaemon(t.Context(), pam, socket.Question{
			Ask: kind, User: "alice", Service: "sshd", Host: "192.0.2.7", Code: code,
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	r.await(func() bool { return ask(socket.AskAccount, "") == socket.Yes })
	withoutRights(t)
	code := touch(t, alice)
	for _, c := range []struct {
		what string
		code string
		want socket.Verdict
	}{{"a code", code, socket.Yes}, {"again", code, socket.No}, {"no code", "123", socket.No}} {
		if got := ask(socket.AskCode, c.code); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.what, got, c.want)
		}
	}
	if got := ask(socket.NotifyOpened, ""); got != socket.Yes {
		t.Errorf("a session: verdict %d", got)
	}
	var opened []string
	r.await(func() bool { opened = sentences(t, st, postern.EventSSHOpened); return len(opened) > 0 })
	want := "alice, YubiKey " + alice.PublicID + ", from 192.0.2.7, opened an SSH session as alice " +
		"(told by hv1; the person is exact)."
	if !slices.Equal(opened, []string{want}) {
		t.Errorf("sessions %q, want %q", opened, want)
	}
	in := []string{"alice as alice on hv1 by sshd from 192.0.2.7, exact, [yubikey=" + alice.PublicID + "]"}
	if got := whoIsIn(t, st); !slices.Equal(got, in) {
		t.Errorf("signed in are %q, want %q", got, in)
	}
	accepted := sentences(t, st, postern.EventSSHAuth)
	if want := "was accepted by sshd as alice (checked here)."; !strings.HasSuffix(accepted[0], want) {
		t.Errorf("logins %q, want %q", accepted, want)
	}
	people := st.Store.People()
	if err := people.SetPersonStatus(t.Context(), "hv1", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	r.await(func() bool { return ask(socket.AskAccount, "") == socket.No })
	unused := touch(t, alice)
	if got := ask(socket.AskCode, unused); got != socket.No {
		t.Errorf("a code on a suspended host: verdict %d", got)
	}
	if err := people.SetPersonStatus(t.Context(), "hv1", postern.PersonActive); err != nil {
		t.Fatal(err)
	}
	r.await(func() bool { return ask(socket.AskCode, touch(t, alice)) == socket.Yes })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := ask(socket.AskCode, touch(t, alice)); got != socket.Unavailable {
		t.Errorf("a code without a server: verdict %d", got)
	}
}

// withoutRights has one child of this process be the agent's part that talks to the
// network, as a user without rights.
func withoutRights(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		children, _ := os.ReadFile(file) // of a thread that may have ended
		for _, pid := range strings.Fields(string(children)) {
			line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			status, _ := os.ReadFile("/proc/" + pid + "/status")
			if !strings.HasSuffix(string(line), "\x00agent\x00network\x00") {
				continue
			}
			found++
			for _, none := range []string{
				`Uid:(\t0|.*\t0\b)`, `Gid:(\t0|.*\t0\b)`, `CapEff:\t0*[1-9a-f]`,
				`CapPrm:\t0*[1-9a-f]`, `Groups:\t0 `,
			} {
				if bad := regexp.MustCompile("(?m)^" + none).Find(status); bad != nil {
					t.Errorf("the process that talks to the network has %q", bad)
				}
			}
		}
	}
	if found != 1 {
		t.Errorf("%d processes talk to the network", found)
	}
}

// whoIsIn returns the sessions that are open.
func whoIsIn(t *testing.T, st *state.State) (all []string) {
	t.Helper()
	list, err := OpenSessions(t.Context(), st.Store)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		all = append(all, fmt.Sprintf("%s as %s on %s by %s from %s, %s, %s", s.Person, s.Account, s.Host, s.Service,
			s.Address, s.Known, s.With))
	}
	return all
}

var tookWords = regexp.MustCompile(`; answered in [0-9.]+ .?s`)

// sentences returns what the timeline says of entries of a kind, but how long it took.
func sentences(t *testing.T, st *state.State, kind string) (all []string) {
	t.Helper()
	log := st.Store.Timeline()
	events, err := log.Events(t.Context(), timeline.Filter{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		joined, err := timeline.Join(t.Context(), log, e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tookWords.ReplaceAllString(timeline.Sentence(e, joined), ""))
	}
	return all
}

// TestAHostGetsRescueCodesOnce asks for updates as a host that lost its codes does.
func TestAHostGetsRescueCodesOnce(t *testing.T) {
	st := &state.State{Store: storetest.Open(t)}
	updates := hostUpdates{st.Store, &sightings{log: st.Store.Timeline()}}
	_, set := rescue.New(2, time.Now())
	if err := st.Store.Rescue().Replace(t.Context(), postern.Actor{}, "hv1", set, postern.Event{}); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		host, has string
		gets      bool
	}{
		{"hv1", "", true},
		{"hv1", "", true},
		{"hv2", "", false},
		{"hv2", set.ID, false},
		{"hv1", "another", true},
		{"hv1", set.ID, false},
		{"hv1", "", false},
	} {
		u, err := updates.of(t.Context(), step.host, remote.Seen{Rescue: step.has})
		if err != nil || (u.Rescue != nil) != step.gets || u.Checkpoint == "" {
			t.Errorf("step %d, %+v: %s, %v", i, step, u.Rescue, err)
		}
	}
}

// TestWhatAHostMayAsk puts questions that no honest agent puts.
func TestWhatAHostMayAsk(t *testing.T) {
	r := startForAgents(t)
	st := r.open()
	hv1 := agentCredentials(t, st, postern.Person{Name: "hv1", Groups: []string{"agents"}})
	other := agentCredentials(t, st, postern.Person{Name: "mallory"})
	alice := giveToken(t, st, "alice")
	post := func(c agent.Credentials, body string) (status int, answer string) {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if pem, err := os.ReadFile(c.CA); err != nil || !roots.AppendCertsFromPEM(pem) {
			t.Fatal("no root")
		}
		client := &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		}}
		defer client.CloseIdleConnections()
		res, err := client.Post(fmt.Sprintf("https://localhost:%d%scode", r.opts.HTTPSPort, remote.Prefix),
			"application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	const event = `{"kind":"ssh.auth","outcome":"ok","host":"hv1","object":"alice"}`
	ask := func(event string) string {
		return `{"user":"alice","code":"` + touch(t, alice) + `","event":` + event + `}`
	}
	r.await(func() bool { status, _ := post(hv1, ask(event)); return status == http.StatusOK })
	for name, body := range map[string]string{
		"no JSON": "x", "no account": `{}`, "a field": `{"user":"alice","host":"hv2"}`,
		"a long account":         `{"user":"` + strings.Repeat("x", 300) + `"}`,
		"a long question":        `{"user":"` + strings.Repeat("x", 20<<10) + `"}`,
		"another host's event":   ask(strings.Replace(event, "hv1", "hv2", 1)),
		"another account's":      ask(strings.Replace(event, `"object":"alice"`, `"object":"root"`, 1)),
		"another kind of event":  ask(strings.Replace(event, "ssh.auth", "libvirt.call", 1)),
		"an event with a person": ask(strings.Replace(event, "{", `{"person":"bob",`, 1)),
		"another host's login":   ask(strings.Replace(event, "{", `{"links":[{"kind":"login","id":"hv2/1"}],`, 1)),
		"a credential": ask(strings.Replace(event, "{",
			`{"links":[{"kind":"yubikey","id":"vvccccbdefgh"}],`, 1)),
	} {
		if status, text := post(hv1, body); status != http.StatusBadRequest {
			t.Errorf("%s: status %d, %s", name, status, text)
		}
	}
	if status, text := post(other, ask(event)); status != http.StatusForbidden {
		t.Errorf("a person who is no host: status %d, %s", status, text)
	}
	if got := sentences(t, st, postern.EventSSHAuth); len(got) != 1 {
		t.Errorf("the timeline says %q", got)
	}
}
