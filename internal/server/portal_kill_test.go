package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/state"
)

// TestKilledWhileThePortalIssues kills the server at random moments while people
// enrol by link and renew. Each certificate that reached a client is in the store,
// and the timeline verifies. Each link that was in use is either still valid or was
// used up with a certificate: none is used twice, and none is lost.
func TestKilledWhileThePortalIssues(t *testing.T) {
	lives := 8
	if os.Getenv("POSTERN_SOAK") == "1" {
		lives = 60
	}
	k := &portalKill{t: t, r: startServer(t, nil)}
	k.rig = &portalRig{url: fmt.Sprintf("https://id.localhost:%d", k.r.opts.HTTPSPort), roots: x509.NewCertPool()}
	k.rig.roots.AddCert(k.r.root())
	me := k.r.me()
	pair, err := tls.LoadX509KeyPair(me[1], me[3])
	if err != nil {
		t.Fatal(err)
	}
	k.first = pair
	for range lives {
		k.life++
		links := k.invite(20)
		given := k.issueUntilKilled(links)
		k.hold(given)
		k.r.start()
		k.again(links)
	}
	t.Logf("%d lives: %d enrolled and %d renewed; of the links in use at the end %d were still valid, %d were used "+
		"up with a certificate",
		lives, k.enrolled, k.renewed, k.reused, k.unseen)
	if k.enrolled == 0 || k.renewed == 0 {
		t.Error("a kind of certificate was never issued")
	}
}

// portalKill is a server that is killed while its portal issues.
type portalKill struct {
	t     *testing.T
	r     *running
	rig   *portalRig
	first tls.Certificate // of the first person
	life  int

	mu                                sync.Mutex
	enrolled, renewed, reused, unseen int
}

// killLink is a link and how it was used.
type killLink struct {
	person, code string
	sent, given  bool // a request went out; a certificate came back
}

// given is what the portal's script gets with a certificate.
type given struct {
	Serial string
	Chain  [][]byte
}

// store lets a function use the state's store, beside the server or without it.
func (k *portalKill) store(f func(ctx context.Context, st *state.State)) {
	k.t.Helper()
	st, err := state.Open(k.t.Context(), k.r.opts.State)
	if err != nil {
		k.t.Fatal(err)
	}
	defer st.Close()
	f(k.t.Context(), st)
}

// invite makes new people, each with a link.
func (k *portalKill) invite(n int) (made []*killLink) {
	k.t.Helper()
	k.store(func(ctx context.Context, st *state.State) {
		authority, err := ca.Open(ctx, ca.Config{}, st.Store.CA())
		if err != nil {
			k.t.Fatal(err)
		}
		links, err := people.Links(ctx, st.Store, authority)
		if err != nil {
			k.t.Fatal(err)
		}
		for i := range n {
			who := postern.Person{
				Name:  fmt.Sprintf("p%d-%d", k.life, i),
				Email: fmt.Sprintf("p%d-%d@example.com", k.life, i),
			}
			if err := st.Store.People().AddPerson(ctx, who); err != nil {
				k.t.Fatal(err)
			}
			link, err := links.Invite(ctx, postern.Actor{}, who)
			if err != nil {
				k.t.Fatal(err)
			}
			made = append(made, &killLink{person: who.Name, code: link.Code})
		}
	})
	return made
}

// visitor is a visitor from an address that only this life uses, because attempts are
// limited by address.
func (k *portalKill) visitor(host int, certs ...tls.Certificate) *visitor {
	v := k.rig.visitor(k.t, certs, "")
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(k.life), byte(host))}}
	v.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", k.r.opts.HTTPSPort))
	}
	return v
}

// send posts a form with a new key's request. An error means that no whole answer
// came.
func (k *portalKill) send(v *visitor, path string, form url.Values) (status int, body []byte, err error) {
	_, csr := clientCSR(k.t)
	form.Set("csr", string(csr))
	req, err := http.NewRequestWithContext(k.t.Context(), http.MethodPost, k.rig.url+path,
		strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := v.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// issueUntilKilled has two people at a time enrol and one renew, and kills the
// server some time after the first certificate. It returns the certificates.
func (k *portalKill) issueUntilKilled(links []*killLink) (all []given) {
	k.t.Helper()
	token := k.csrf()
	var once sync.Once
	got := func(count *int, status int, body []byte) (g given, ok bool) {
		if err := json.Unmarshal(body, &g); status != 200 || err != nil || len(g.Chain) == 0 {
			k.t.Errorf("%d %v: %s", status, err, body)
			return g, false
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		all = append(all, g)
		*count++
		once.Do(func() {
			time.AfterFunc(time.Duration(rand.IntN(120_000))*time.Microsecond, func() { k.r.kill() })
		})
		return g, true
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			v := k.visitor(1 + i)
			for n := i; n < len(links); n += 2 {
				l := links[n]
				l.sent = true
				status, body, err := k.send(v, "/enrol", url.Values{"code": {l.code}, "label": {"laptop"}})
				if err != nil {
					return
				}
				if _, l.given = got(&k.enrolled, status, body); !l.given {
					return
				}
			}
		})
	}
	wg.Go(func() {
		v, serial := k.visitor(3, k.first), ca.SerialString(k.first.Leaf.SerialNumber)
		for ok := true; ok; {
			status, body, err := k.send(v, "/certificates/"+serial+"/renew", url.Values{"csrf": {token}})
			if err != nil {
				return
			}
			var next given
			next, ok = got(&k.renewed, status, body)
			serial = next.Serial
		}
	})
	wg.Wait()
	once.Do(func() { k.r.kill() }) // if nothing was issued
	k.r.stop()
	return all
}

// csrf waits until the portal answers, and returns the first person's token.
func (k *portalKill) csrf() (token string) {
	k.t.Helper()
	v := k.visitor(3, k.first)
	k.r.await(func() bool {
		resp, err := v.Get(k.rig.url + "/certificates/new")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		page, _ := io.ReadAll(resp.Body)
		if m := csrfRE.FindSubmatch(page); m != nil {
			token = string(m[1])
		}
		return token != ""
	})
	return token
}

// hold compares the server's store with the certificates that it issued.
func (k *portalKill) hold(all []given) {
	k.t.Helper()
	k.store(func(ctx context.Context, st *state.State) {
		for _, g := range all {
			c, err := st.Store.CA().Certificate(ctx, g.Serial)
			if err != nil || !bytes.Equal(c.DER, g.Chain[0]) {
				k.t.Errorf("the certificate %s was issued, and in the store is: %v %x", g.Serial, err, c.DER)
			}
		}
		report, err := st.Store.Timeline().VerifyLog(ctx)
		if err != nil || len(report.Problems) > 0 {
			k.t.Errorf("the timeline: %v %v", err, report.Problems)
		}
	})
}

// again tries every link that was sent once more, with another key.
func (k *portalKill) again(links []*killLink) {
	k.t.Helper()
	k.csrf()
	v := k.visitor(4)
	reused := map[string]bool{}
	for _, l := range links {
		if !l.sent {
			continue
		}
		status, body, err := k.send(v, "/enrol", url.Values{"code": {l.code}, "label": {"laptop"}})
		switch {
		case err == nil && status == 200 && !l.given:
			reused[l.person] = true
		case err != nil || status/100 != 4 || !strings.Contains(string(body), "This link is not valid"):
			k.t.Errorf("a link that was used before the end (certificate received: %v): %v %d %s", l.given, err,
				status, body)
		}
	}
	k.store(func(ctx context.Context, st *state.State) {
		for _, l := range links {
			certs, err := st.Store.CA().Certificates(ctx, ca.Filter{Person: l.person})
			if err != nil {
				k.t.Fatal(err)
			}
			switch {
			case len(certs) > 1 || len(certs) == 0 && (l.given || reused[l.person]) || len(certs) > 0 && !l.sent:
				k.t.Errorf("%s has %d certificates: %+v", l.person, len(certs), l)
			case reused[l.person]:
				k.reused++
			case l.sent && !l.given && len(certs) == 1:
				k.unseen++
			case l.sent && !l.given:
				k.t.Errorf("%s's link is used up, and no certificate was issued", l.person)
			}
		}
	})
}
