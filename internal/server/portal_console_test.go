package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// happens appends entries to the timeline.
func (rig *portalRig) happens(t *testing.T, events ...postern.Event) {
	t.Helper()
	if err := rig.db.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

// ran is a call to libvirt on hv1.
func ran(machine string) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: postern.EventLibvirtCall, Outcome: postern.OK, Host: "hv1", Object: machine,
		Details: map[string]string{timeline.Procedure: "domainDestroy"},
	}
}

// TestTimelinePage finds entries by links, and goes back to the first one page by page.
func TestTimelinePage(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	login := postern.Link{Kind: postern.LinkLogin, ID: "hv1/aa"}
	call := ran("vm3")
	call.Links = []postern.Link{login}
	rig.happens(t, postern.Event{
		Time: time.Now(), Kind: postern.EventOTP, Outcome: postern.OK, Person: "boss", Address: "192.0.2.7",
		Links: []postern.Link{login, {Kind: string(postern.YubiKey), ID: "vvccccbdefgh"}},
	}, call)
	for i := range 120 {
		rig.happens(t, postern.Event{
			Time: time.Now(), Kind: postern.EventAccessRefused, Outcome: postern.Refused, Address: "203.0.113.9",
			Object: fmt.Sprintf("/wp-admin/%d", i), Reason: "none-shown",
		})
	}
	const sentence = `YubiKey <a href="/admin/timeline?link=yubikey%3Dvvccccbdefgh">vvccccbdefgh</a>, from ` +
		`<a href="/admin/timeline?address=192.0.2.7">192.0.2.7</a>, ran domainDestroy on ` +
		`<a href="/admin/timeline?machine=vm3">vm3</a>`
	for query, want := range map[string]string{
		"host=hv1":                  sentence,
		"machine=vm3":               sentence,
		"strength=exact":            sentence,
		"words=DOMAINdestroy+vm3":   sentence,
		"link=login%3Dhv1/aa":       sentence,
		"strength=guess":            "No entry.",
		"words=domainDestroy+vm4":   "No entry.",
		"outcome=refused":           "/wp-admin/119",
		"address=203.0.113.0/24":    "/wp-admin/119",
		"kind=gate&before=50":       "To the newest entries",
		"since=2001-01-01T00:00":    "/wp-admin/119",
		"until=2001-01-01T00:00:00": "No entry.",
		"machine=vm3&kind=libvirt":  sentence,
	} {
		boss.get("/admin/timeline?"+query).says(t, 200, want)
	}
	for _, query := range []string{
		"outcome=good", "since=then", "strength=iron", "address=1.2.3.4/99", "link=x",
		"before=-1",
	} {
		boss.get("/admin/timeline?"+query).says(t, 400, "Invalid request")
	}
	boss.get("/admin/people?after=%00").says(t, 404, "no such page")
	seen := map[string]bool{}
	for path, pages := "/admin/timeline", 0; path != ""; pages++ {
		a := boss.get(path)
		for part := range strings.SplitSeq(a.body, `<li id="entry-`) {
			if index, _, ok := strings.Cut(part, `"`); ok {
				seen[index] = true
			}
		}
		_, rest, _ := strings.Cut(a.body, `<p><a href="/admin/timeline?before=`)
		path, _, _ = strings.Cut(rest, `"`)
		if path != "" {
			path = "/admin/timeline?before=" + path
		}
		if pages > 10 {
			t.Fatal("there is no end of older entries")
		}
	}
	size, err := rig.db.Timeline().LogSize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range size {
		if !seen[strconv.FormatInt(i, 10)] {
			t.Errorf("entry %d is on no page", i)
		}
	}
}

// TestEntryPage opens an entry's evidence, and checks the proof that it offers.
func TestEntryPage(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	login := postern.Link{Kind: postern.LinkLogin, ID: "hv1/aa"}
	call := ran("vm3")
	call.Links, call.Took = []postern.Link{login}, 41*time.Millisecond
	rig.happens(t, postern.Event{
		Time: time.Now(), Kind: postern.EventOTP, Outcome: postern.OK, Person: "boss", Links: []postern.Link{login},
	}, call)
	size, err := rig.db.Timeline().LogSize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/admin/timeline/%d", size-1)
	a := boss.get(path)
	for _, want := range []string{
		"answered in 41 ms", "this server checked a code for that very sign-in", "libvirt calls",
		"gave a valid one-time code",
		"No witness has cosigned",
	} {
		a.says(t, 200, want)
	}
	var proof timeline.Proof
	if err := json.Unmarshal([]byte(boss.get(path+"/proof").body), &proof); err != nil {
		t.Fatal(err)
	}
	keys, err := timeline.ParseKeys(rig.db.Timeline().LogVerifier())
	if err != nil {
		t.Fatal(err)
	}
	if e, _, err := proof.Check(keys); err != nil || e.Object != "vm3" {
		t.Errorf("the proof is of %+v: %v", e, err)
	}
	boss.get("/admin/timeline/999999").says(t, 404, "no entry 999999")
	boss.get("/certificates/"+boss.serial).says(t, 200, "All entries, live")
	boss.get("/admin/people/boss").says(t, 200, `<a href="/certificates/`+boss.serial)
	boss.get("/admin/hosts/hv1").says(t, 200, "ran domainDestroy on")
	boss.get("/admin/hosts/hv2").says(t, 404, "no such host")
	boss.get("/admin/timeline/no").says(t, 404, "no such entry")
}

// stream is the timeline as it is written.
type sse struct {
	t      *testing.T
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// watches opens the stream of a query, as a browser does that was away since an entry.
func (v *visitor) watches(query, since string) *sse {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	v.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.rig.url+"/admin/timeline/live?next=0&"+query, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", since)
	resp, err := v.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		v.t.Fatalf("the stream answers %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &sse{v.t, bufio.NewScanner(resp.Body), cancel}
}

// message is one event of a stream.
type message struct {
	id, event string
	data      struct {
		Lines  []struct{ Index int64 }
		Folded struct{ Text, Path string }
	}
}

// next waits for an event that has data; nil when the stream ends.
func (s *sse) next() *message {
	s.t.Helper()
	var m message
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch {
		case field == "id":
			m.id = value
		case field == "event":
			m.event = value
		case field == "data":
			if err := json.Unmarshal([]byte(value), &m.data); err != nil {
				s.t.Fatal(err)
			}
		case field == "" && m.event != "":
			return &m
		}
	}
	return nil
}

// sees waits until so many lines have come, and returns their indices and the last ID. What
// was folded counts.
func (s *sse) sees(n int) (indices map[int64]bool, id string) {
	s.t.Helper()
	indices = map[int64]bool{}
	for got := 0; got < n; {
		m := s.next()
		if m == nil {
			s.t.Fatalf("the stream ended after %d of %d", got, n)
		}
		for _, l := range m.data.Lines {
			indices[l.Index] = true
		}
		got += len(m.data.Lines)
		if words := strings.Fields(m.data.Folded.Text); len(words) > 0 {
			folded, err := strconv.Atoi(words[0])
			if err != nil {
				s.t.Fatalf("%q says no number", m.data.Folded.Text)
			}
			got += folded
		}
		id = m.id
	}
	return indices, id
}

// ends waits until the server says that the stream ends, and ends it.
func (s *sse) ends() {
	s.t.Helper()
	for m := s.next(); m == nil || m.event != "end"; m = s.next() {
		if m == nil {
			s.t.Fatal("the stream ended, and did not say so")
		}
	}
	if m := s.next(); m != nil {
		s.t.Errorf("after the end comes %+v", m)
	}
}

func (rig *portalRig) logSize(t *testing.T) string {
	t.Helper()
	size, err := rig.db.Timeline().LogSize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(size, 10)
}

// TestTimelineLive watches the timeline: what comes, what came while a page was away, and a
// burst, which is folded and of which nothing is lost.
func TestTimelineLive(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	start := rig.logSize(t)
	ahead := boss.watches("machine=vm3", "9223372036854775807") // as after a restore of the database
	s := boss.watches("machine=vm3", start)
	rig.happens(t, ran("vm3"), ran("vm4"))
	ahead.sees(1)
	ahead.cancel()
	_, id := s.sees(1)
	s.cancel()
	rig.happens(t, ran("vm3"), ran("vm3"))
	s = boss.watches("machine=vm3", id)
	seen, id := s.sees(2)
	if len(seen) != 2 {
		t.Errorf("seen after the page was away: %v", seen)
	}
	burst := make([]postern.Event, 300)
	for i := range burst {
		burst[i] = ran("vm3")
	}
	rig.happens(t, burst...)
	seen, _ = s.sees(len(burst))
	if len(seen) > 100 {
		t.Errorf("a burst of %d was sent as %d lines", len(burst), len(seen))
	}
	s.cancel()
	s = boss.watches("", id) // as one that slept through the burst
	m := s.next()
	if m == nil || len(m.data.Lines) == 0 || m.data.Folded.Text == "" {
		t.Fatalf("a page that slept sees %+v", m)
	}
	boss.get(m.data.Folded.Path).says(t, 200, "domainDestroy")
	s = boss.watches("words=vm4", start) // as one that slept, too, and looks for what was before the burst
	if m = s.next(); m == nil || len(m.data.Lines) != 1 {
		t.Fatalf("a page that slept and looks for words sees %+v", m)
	}
	rig.happens(t, burst...)
	s = boss.watches("words=vm4", start)
	if m = s.next(); m == nil || m.data.Folded.Path == "" {
		t.Fatalf("a page that slept for long and looks for words sees %+v", m)
	}
	boss.get(m.data.Folded.Path).says(t, 200, "machine=vm4")
}

// TestLiveIsForAdministratorsOnly opens the stream without a right to it, and takes the
// right away from those who have it.
func TestLiveIsForAdministratorsOnly(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan")
	const live = "/admin/timeline/live?next=0"
	for range 50 {
		rig.newVisitor(t).get(live).says(t, 403, "")
	}
	dan.get(live).says(t, 403, "for administrators")
	boss.get("/admin/timeline/live").says(t, 400, "")
	for name, end := range map[string]func(v *visitor){
		"revoked": func(v *visitor) {
			if err := rig.ca.Revoke(t.Context(), v.serial, postern.Unspecified, postern.Actor{}); err != nil {
				t.Fatal(err)
			}
		},
		"suspended": func(*visitor) { boss.post("/admin/people/suspended/suspend").says(t, 303, "") },
		"no-right":  func(*visitor) { boss.post("/admin/people/no-right/change", "groups", "").says(t, 303, "") },
	} {
		t.Run(name, func(t *testing.T) {
			v := rig.enrolled(t, name, "admin")
			s := v.watches("", rig.logSize(t))
			end(v)
			s.ends()
		})
	}
}

// TestLiveIsBounded opens more pages than one person may have, and closes one.
func TestLiveIsBounded(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	first := boss.watches("", rig.logSize(t))
	for range 7 {
		boss.watches("", rig.logSize(t))
	}
	boss.get("/admin/timeline/live?next=0").says(t, 429, "Too many pages")
	first.cancel()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rig.url+"/admin/timeline/live?next=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := boss.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		cancel()
		if resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a page that was closed is not free")
		}
	}
}

// TestNowPage shows what an administrator should look at, and nothing where there is
// nothing.
func TestNowPage(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	boss.get("/admin").says(t, 200, "Nothing. The last checks")
	boss.get("/admin").says(t, 200, "No session is open")
	rig.happens(t,
		postern.Event{
			Kind: postern.EventCheckDisk, Object: "server", Outcome: postern.Failed,
			Reason: "less than 1 GiB is free",
		},
		postern.Event{Kind: postern.EventCheckSSH, Object: "server", Outcome: postern.Failed, Reason: "a hole"},
		postern.Event{Kind: postern.EventCheckSSH, Object: "server", Outcome: postern.OK},
		postern.Event{Kind: postern.EventAccessRefused, Outcome: postern.Refused, Reason: "none-shown", Count: 40},
		postern.Event{
			Kind: postern.EventSSHOpened, Outcome: postern.OK, Host: "hv1", Person: "boss", Object: "root",
			Details: map[string]string{"service": "sshd"},
			Links:   []postern.Link{{Kind: postern.LinkProcess, ID: "hv1/boot/1/1"}},
		})
	a := boss.get("/admin")
	for _, want := range []string{
		"less than 1 GiB is free", "postern log archive", `<td class="n">40</td>`, "Signed in to hosts (1)", "root",
	} {
		a.says(t, 200, want)
	}
	if strings.Contains(a.body, "a hole") {
		t.Error("what is in order again is to be looked at")
	}
	rig.happens(t, postern.Event{Kind: postern.EventCheckDisk, Object: "server", Outcome: postern.OK})
	boss.get("/admin").says(t, 200, "Nothing. The last checks")
}

// TestNowPageOfHosts has a host write so many checks that others would be forgotten, and
// removes one that has left a finding behind.
func TestNowPageOfHosts(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	rig.happens(t,
		postern.Event{
			Kind: postern.EventCheckSSH, Object: "hv1", Host: "hv1", Outcome: postern.Failed,
			Reason: "a hole",
		},
		postern.Event{Kind: postern.EventCheckAgent, Object: "joined:hv1", Outcome: postern.Failed, Reason: "silent"},
		postern.Event{
			Time: time.Now().AddDate(0, -2, 0), Kind: postern.EventCheckAgent, Object: "person:old",
			Outcome: postern.Failed, Reason: "long ago",
		})
	boss.get("/admin").says(t, 200, "a hole")
	boss.get("/admin").says(t, 200, "silent")
	rig.happens(t, postern.Event{Kind: postern.EventHostRemoved, Object: "hv1", Outcome: postern.OK})
	boss.get("/admin").says(t, 200, "Nothing. The last checks")
	rig.happens(t, postern.Event{Kind: postern.EventCheckDisk, Object: "server", Outcome: postern.Failed})
	flood := make([]postern.Event, 1000)
	for i := range flood {
		flood[i] = postern.Event{
			Time: time.Now(), Kind: postern.EventCheckSSH, Object: "hv2", Host: "hv2",
			Outcome: postern.OK,
		}
	}
	rig.happens(t, flood...)
	boss.get("/admin").says(t, 200, "Check of the disk (server)")
	boss.get("/admin").says(t, 200, "/admin/timeline?kind=check.ssh")
	sessions := make([]postern.Event, 101)
	for i := range sessions {
		sessions[i] = postern.Event{
			Time: time.Now(), Kind: postern.EventSSHOpened, Outcome: postern.OK, Host: "hv2", Object: "root",
			Links: []postern.Link{{Kind: postern.LinkProcess, ID: fmt.Sprintf("hv2/boot/%d/1", i)}},
		}
	}
	rig.happens(t, sessions...)
	for _, path := range []string{"/admin", "/admin/hosts/hv2"} {
		a := boss.get(path)
		a.says(t, 200, " (101)")
		a.says(t, 200, "The newest 100 are shown")
		if n := strings.Count(a.body, `data-label="Host"`); n != 100 {
			t.Errorf("%s shows %d sessions", path, n)
		}
	}
}

// TestStoredScript puts markup into every field of an entry that an unauthenticated client
// or a host can fill, and reads it back from each page.
func TestStoredScript(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss := rig.enrolled(t, "boss", "admin")
	const script = `"><img src=x onerror=alert(1)><script>alert(2)</script>'`
	e := postern.Event{
		Time: time.Now(), Kind: postern.EventLibvirtCall, Outcome: postern.Refused, Host: script, Person: script,
		Address: script,
		Object:  script, Reason: script, Details: map[string]string{
			timeline.Procedure: script, "user": script,
			script: script, "by": script,
		},
		Links: []postern.Link{
			{Kind: postern.LinkLogin, ID: script},
			{Kind: string(postern.YubiKey), ID: script},
			{Kind: script, ID: script},
		},
	}
	opened, checked, odd := e, e, e
	opened.Kind, opened.Outcome = postern.EventSSHOpened, postern.OK
	opened.Links = append(opened.Links, postern.Link{Kind: postern.LinkProcess, ID: "hv1/boot/1/" + script})
	checked.Kind = postern.EventCheckSSH
	odd.Kind = script
	rig.happens(t, e, opened, checked, odd)
	size, err := strconv.Atoi(rig.logSize(t))
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/admin", "/admin/timeline", "/admin/timeline?words=onerror"}
	for i := size - 4; i < size; i++ {
		paths = append(paths, fmt.Sprintf("/admin/timeline/%d", i))
	}
	for _, path := range paths {
		a := boss.get(path)
		a.says(t, 200, "onerror")
		if strings.Contains(a.body, "<img") || strings.Contains(a.body, "<script>") {
			t.Errorf("%s has markup of an entry", path)
		}
	}
}

// TestAdministratorsPagesAreClosed asks for each page without being an administrator.
func TestAdministratorsPagesAreClosed(t *testing.T) {
	rig := newPortalRig(t, nil)
	boss, dan := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan")
	paths := []string{
		"/admin", "/admin/people", "/admin/timeline", "/admin/timeline?person=dan", "/admin/timeline/1",
		"/admin/timeline/1/proof",
		"/admin/timeline/live?next=0", "/admin/people/boss", "/admin/hosts", "/admin/hosts/hv1", "/admin/names",
		"/admin/roots",
	}
	for _, path := range paths {
		rig.newVisitor(t).get(path).says(t, 403, "")
		dan.get(path).says(t, 403, "for administrators")
	}
	rig.enrolled(t, "second", "admin").post("/admin/people/boss/suspend").says(t, 303, "")
	for _, path := range paths {
		boss.get(path).says(t, 403, "has suspended you")
	}
}
